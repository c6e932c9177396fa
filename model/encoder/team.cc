#include "model/encoder/team.h"

#include <chrono>
#include <thread>

namespace longembed {
namespace {

// What a thread does that expects its turn within microseconds: first it only waits, then it lets others run. A helper
// that is not needed for longer sleeps a little; a leader has only a helper's last iteration to wait for.
class Backoff {
 public:
  void Wait() {
    if (++rounds_ < kSpins) {
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    } else if (!may_sleep_ || rounds_ < kYields) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  }
  explicit Backoff(bool may_sleep) : may_sleep_(may_sleep) {}
  void Reset() { rounds_ = 0; }

 private:
  static constexpr int kSpins = 1000;  // Some 20 microseconds.
  static constexpr int kYields = 1200;
  const bool may_sleep_;
  int rounds_ = 0;
};

}  // namespace

bool Team::Loop::RunOne() {
  const int i = next.fetch_add(1, std::memory_order_relaxed);
  if (i >= count) return false;
  try {
    body(i);
  } catch (...) {
    next.store(count, std::memory_order_relaxed);
    if (!failed.exchange(true)) error = std::current_exception();
  }
  return true;
}

Team::Leader::Leader(Team& team) : team_(team) {
  team_.leaders_.fetch_add(1);
  for (int i = 0; i < kMaxLeaders; ++i) {
    bool free = false;
    if (team_.slots_[i].taken.compare_exchange_strong(free, true)) {
      slot_ = i;
      return;
    }
  }
}

Team::Leader::~Leader() {
  if (slot_ >= 0) team_.slots_[slot_].taken.store(false);
  team_.leaders_.fetch_sub(1);
}

void Team::Leader::ParallelFor(int count, absl::FunctionRef<void(int)> body) {
  Loop loop(count, body);
  const bool alone = count == 1 || slot_ < 0;
  if (!alone) team_.slots_[slot_].loop.store(&loop);
  while (loop.RunOne()) {
  }
  if (!alone) {
    Slot& slot = team_.slots_[slot_];
    slot.loop.store(nullptr);
    for (Backoff backoff(/*may_sleep=*/false); slot.inside.load() > 0;) backoff.Wait();
  }
  if (loop.failed) std::rethrow_exception(loop.error);
}

bool Team::HelpOnce(int& place, absl::FunctionRef<bool()> leave) {
  for (int tried = 0; tried < kMaxLeaders; ++tried, place = (place + 1) % kMaxLeaders) {
    Slot& slot = slots_[place];
    if (slot.loop.load(std::memory_order_relaxed) == nullptr) continue;
    bool worked = false;
    slot.inside.fetch_add(1);
    if (Loop* const loop = slot.loop.load(); loop != nullptr) {
      while (!leave() && loop->RunOne()) worked = true;
    }
    slot.inside.fetch_sub(1);
    if (worked) return true;
  }
  return false;
}

HelperThreads::HelperThreads(Team& team, int threads) {
  for (int i = 0; i < threads; ++i) {
    threads_.emplace_back([this, &team] {
      while (!stopping_) {
        team.Help([this] { return stopping_.load(); });
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    });
  }
}

HelperThreads::~HelperThreads() {
  stopping_ = true;
  threads_.clear();  // Joins.
}

void Team::Help(absl::FunctionRef<bool()> leave) {
  helpers_.fetch_add(1);
  int place = 0;
  for (Backoff backoff(/*may_sleep=*/true); has_leaders() && !leave();) {
    if (HelpOnce(place, leave)) {
      backoff.Reset();
    } else {
      backoff.Wait();
    }
  }
  helpers_.fetch_sub(1);
}

}  // namespace longembed
