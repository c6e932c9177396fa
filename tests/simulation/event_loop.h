// Virtual time: events run in the order of their times, on one thread.
#ifndef LONGEMBED_TESTS_SIMULATION_EVENT_LOOP_H_
#define LONGEMBED_TESTS_SIMULATION_EVENT_LOOP_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <utility>

#include "system/clock.h"

namespace longembed {

// An event may add events. It may also wait: RunUntil inside an event runs other events until that time.
class EventLoop final : public Clock {
 public:
  absl::Time Now() const override { return now_; }

  void At(absl::Time time, std::function<void()> event) {
    events_.emplace(std::pair(std::max(time, now_), next_++), std::move(event));
  }
  void After(absl::Duration delay, std::function<void()> event) { At(now_ + delay, std::move(event)); }

  // Sets the function that runs the server's threads. It is called after each event and before a wait, until it returns
  // false.
  void set_threads(std::function<bool()> threads) { threads_ = std::move(threads); }

  void RunUntil(absl::Time end) {
    RunThreads();
    while (!events_.empty() && events_.begin()->first.first <= end) Next();
    now_ = std::max(now_, end);
  }
  // Runs the next event. Returns false if there is none.
  bool Next() {
    if (events_.empty()) return false;
    auto event = events_.extract(events_.begin());
    now_ = std::max(now_, event.key().first);
    event.mapped()();
    RunThreads();
    return true;
  }

 private:
  void RunThreads() {
    while (threads_ && threads_()) continue;
  }

  absl::Time now_ = absl::UnixEpoch() + absl::Hours(1);
  uint64_t next_ = 0;  // Events of the same time run in the order in which they were added.
  std::map<std::pair<absl::Time, uint64_t>, std::function<void()>> events_;
  std::function<bool()> threads_;
};

}  // namespace longembed

#endif  // LONGEMBED_TESTS_SIMULATION_EVENT_LOOP_H_
