// A clock that is passed to its users, so that tests can set the time.
#ifndef LONGEMBED_SYSTEM_CLOCK_H_
#define LONGEMBED_SYSTEM_CLOCK_H_

#include <chrono>

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

}  // namespace longembed

#endif  // LONGEMBED_SYSTEM_CLOCK_H_
