#include "model/encoder/cpu/per_thread.h"

#include <algorithm>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "system/mutex.h"

namespace longembed::cpu {
namespace {

// The numbers of living threads.
class Numbers {
 public:
  int Take() {
    const MutexLock lock(mutex_);
    const auto free = std::ranges::find(taken_, false);
    const auto number = static_cast<int>(free - taken_.begin());
    if (free == taken_.end()) taken_.push_back(true);
    taken_[static_cast<size_t>(number)] = true;
    return number;
  }
  void Return(int number) {
    const MutexLock lock(mutex_);
    taken_[static_cast<size_t>(number)] = false;
  }

 private:
  Mutex mutex_;
  std::vector<bool> taken_ ABSL_GUARDED_BY(mutex_);
};

// Returns the instance, which is never destroyed, so that it outlives every thread.
Numbers& TheNumbers() {
  static Numbers& numbers = *new Numbers;
  return numbers;
}

struct Holder {
  const int number = TheNumbers().Take();
  ~Holder() { TheNumbers().Return(number); }
};

}  // namespace

int ThreadNumber() {
  thread_local const Holder holder;
  return holder.number;
}

}  // namespace longembed::cpu
