#include "model/encoder/team.h"

#include <algorithm>
#include <chrono>
#include <thread>

namespace longembed {
namespace {

// Waits for an event that is expected within microseconds: first spins, then yields. Helpers, which may lack work for
// longer, finally sleep; leaders, which only wait for a helper's last iteration, do not.
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
  static constexpr int kSpins = 1000;  // About 20 microseconds.
  static constexpr int kYields = 1200;
  const bool may_sleep_;
  int rounds_ = 0;
};

}  // namespace

Team::Team(int max_leaders) : slots_(static_cast<size_t>(std::max(1, max_leaders))) {}
Team::Team() : Team(static_cast<int>(std::thread::hardware_concurrency())) {}

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
  for (size_t i = 0; i < team_.slots_.size(); ++i) {
    bool free = false;
    if (team_.slots_[i].taken.compare_exchange_strong(free, true)) {
      slot_ = static_cast<int>(i);
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
  const bool alone = count <= 1 || slot_ < 0;
  if (!alone) {
    Slot& slot = team_.slots_[slot_];
    slot.loop.store(&loop);
    slot.openings.store(count - 1);
  }
  while (loop.RunOne()) {
  }
  if (!alone) {
    Slot& slot = team_.slots_[slot_];
    slot.openings.store(0);
    slot.loop.store(nullptr);
    for (Backoff backoff(/*may_sleep=*/false); slot.inside.load() > 0;) backoff.Wait();
  }
  if (loop.failed) std::rethrow_exception(loop.error);
}

bool Team::Slot::TakeOpening() {
  int left = openings.load(std::memory_order_relaxed);
  while (left > 0) {
    if (openings.compare_exchange_weak(left, left - 1)) return true;
  }
  return false;
}

bool Team::Slot::Help(absl::FunctionRef<bool()> leave) {
  bool worked = false;
  inside.fetch_add(1);
  if (Loop* const current = loop.load(); current != nullptr) {
    bool left = false;
    while (!(left = leave()) && current->RunOne()) worked = true;
    // If this helper leaves early, another one may take its place. If no iteration is left, nobody else needs to join.
    if (left) {
      openings.fetch_add(1);
    } else {
      openings.store(0);
    }
  }
  inside.fetch_sub(1);
  return worked;
}

bool Team::HelpOnce(size_t& first, absl::FunctionRef<bool()> leave) {
  for (size_t tried = 0; tried < slots_.size(); ++tried, first = (first + 1) % slots_.size()) {
    if (slots_[first].TakeOpening() && slots_[first].Help(leave)) return true;
  }
  return false;
}

HelperThreads::HelperThreads(Team& team, int threads) {
  const auto help = [this, &team] {
    while (!stopping_) {
      team.Help([this] { return stopping_.load(); });
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  };
  try {
    for (int i = 0; i < threads; ++i) threads_.emplace_back(help);
  } catch (...) {
    stopping_ = true;  // There will be no destructor to end the threads that have started.
    throw;
  }
}

HelperThreads::~HelperThreads() {
  stopping_ = true;
  threads_.clear();  // Joins the threads.
}

void Team::Help(absl::FunctionRef<bool()> leave) {
  helpers_.fetch_add(1);
  size_t first = 0;
  for (Backoff backoff(/*may_sleep=*/true); has_leaders() && !leave();) {
    if (HelpOnce(first, leave)) {
      backoff.Reset();
    } else {
      backoff.Wait();
    }
  }
  helpers_.fetch_sub(1);
}

}  // namespace longembed
