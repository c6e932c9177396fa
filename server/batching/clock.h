// The time, injected, so that tests decide what it is.
#ifndef LONGEMBED_SERVER_BATCHING_CLOCK_H_
#define LONGEMBED_SERVER_BATCHING_CLOCK_H_

#include <sys/types.h>
#include <time.h>

#include <chrono>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace longembed {

// Multiple threads can call Now without external synchronization.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() const = 0;
};

// Starts at the wall clock's time and advances by the monotonic clock: setting the wall clock changes nothing here.
class RealClock final : public Clock {
 public:
  absl::Time Now() const override {
    return began_ + absl::FromChrono(std::chrono::steady_clock::now() - steady_began_);
  }

 private:
  const absl::Time began_ = absl::Now();
  const std::chrono::steady_clock::time_point steady_began_ = std::chrono::steady_clock::now();
};

// That all threads of this process have had.
inline absl::Duration ProcessCpuTime() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return absl::DurationFromTimespec(time);
}

// Whether a thread of this process runs or would if it got a core: not one that waits for a lock, a device or a file.
// False where the system does not say.
inline bool WantsCpu(pid_t thread) {
  std::ifstream stat(absl::StrCat("/proc/self/task/", thread, "/stat"));
  std::string line;
  std::getline(stat, line);
  const size_t name_end = line.rfind(')');  // Before it stands the thread's name, which may hold anything.
  return name_end != std::string::npos && line.compare(name_end, 3, ") R") == 0;
}

}  // namespace longembed

#endif  // LONGEMBED_SERVER_BATCHING_CLOCK_H_
