// The time, injected, so that tests decide what it is.
#ifndef LONGEMBED_SERVER_BATCHING_CLOCK_H_
#define LONGEMBED_SERVER_BATCHING_CLOCK_H_

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace longembed {

// Multiple threads can call Now without external synchronization.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() const = 0;
};

class RealClock final : public Clock {
 public:
  absl::Time Now() const override { return absl::Now(); }
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_BATCHING_CLOCK_H_
