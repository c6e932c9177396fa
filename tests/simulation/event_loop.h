// Virtual time: things happen in the order of their times, on one thread.
#ifndef LONGEMBED_TESTS_SIMULATION_EVENT_LOOP_H_
#define LONGEMBED_TESTS_SIMULATION_EVENT_LOOP_H_

#include <cstdint>
#include <functional>
#include <map>
#include <utility>

#include "server/batching/clock.h"

namespace longembed {

// What happens may make more happen, and may wait: RunUntil within an event goes on with the others until that time.
class EventLoop final : public Clock {
 public:
  absl::Time Now() const override { return now_; }

  void At(absl::Time time, std::function<void()> event) {
    events_.emplace(std::pair(std::max(time, now_), next_++), std::move(event));
  }
  void After(absl::Duration delay, std::function<void()> event) { At(now_ + delay, std::move(event)); }

  // After each event `then` runs, until it says that there is nothing more to do.
  void set_then(std::function<bool()> then) { then_ = std::move(then); }

  void RunUntil(absl::Time end) {
    while (!events_.empty() && events_.begin()->first.first <= end) Next();
    now_ = std::max(now_, end);
  }
  bool Next() {
    if (events_.empty()) return false;
    auto event = events_.extract(events_.begin());
    now_ = std::max(now_, event.key().first);
    event.mapped()();
    while (then_ && then_()) continue;
    return true;
  }

 private:
  absl::Time now_ = absl::UnixEpoch() + absl::Hours(1);
  uint64_t next_ = 0;  // Events of one time happen in the order in which they were told of.
  std::map<std::pair<absl::Time, uint64_t>, std::function<void()>> events_;
  std::function<bool()> then_;
};

}  // namespace longembed

#endif  // LONGEMBED_TESTS_SIMULATION_EVENT_LOOP_H_
