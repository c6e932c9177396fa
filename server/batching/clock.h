// A clock that is passed to its users, so that tests can set the time.
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

// A source of the current time. Multiple threads can call Now without external synchronization.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() const = 0;
};

// Starts at the wall clock's time and then follows the monotonic clock, so that setting the wall clock has no effect.
class RealClock final : public Clock {
 public:
  absl::Time Now() const override {
    return began_ + absl::FromChrono(std::chrono::steady_clock::now() - steady_began_);
  }

 private:
  const absl::Time began_ = absl::Now();
  const std::chrono::steady_clock::time_point steady_began_ = std::chrono::steady_clock::now();
};

// Returns the CPU time that all threads of this process have used.
inline absl::Duration ProcessCpuTime() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return absl::DurationFromTimespec(time);
}

// Returns whether a thread of this process runs, or would run if it got a core. A thread that waits for a lock, a
// device or a file does not. Returns false if the system does not say.
inline bool WantsCpu(pid_t thread) {
  std::ifstream stat(absl::StrCat("/proc/self/task/", thread, "/stat"));
  std::string line;
  std::getline(stat, line);
  const size_t name_end = line.rfind(')');  // The thread's name is before it and may contain anything.
  return name_end != std::string::npos && line.compare(name_end, 3, ") R") == 0;
}

}  // namespace longembed

#endif  // LONGEMBED_SERVER_BATCHING_CLOCK_H_
