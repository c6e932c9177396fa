// The time, injected, so that tests decide what it is.
#ifndef LONGEMBED_SERVER_BATCHING_CLOCK_H_
#define LONGEMBED_SERVER_BATCHING_CLOCK_H_

#include <time.h>

#include <chrono>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace longembed {

// Multiple threads can call Now without external synchronization.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() const = 0;
};

// Begins at the wall clock's time and goes on by the monotonic clock: a wall clock that is set changes nothing here.
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

}  // namespace longembed

#endif  // LONGEMBED_SERVER_BATCHING_CLOCK_H_
