// A clock that does not advance until a test moves it.
#ifndef LONGEMBED_TESTS_TESTING_FAKE_CLOCK_H_
#define LONGEMBED_TESTS_TESTING_FAKE_CLOCK_H_

#include "absl/base/thread_annotations.h"
#include "system/clock.h"
#include "system/mutex.h"

namespace longembed {

class FakeClock final : public Clock {
 public:
  absl::Time Now() const override {
    const MutexLock lock(mutex_);
    return now_;
  }
  void Advance(absl::Duration by) {
    const MutexLock lock(mutex_);
    now_ += by;
  }

 private:
  mutable Mutex mutex_;
  absl::Time now_ ABSL_GUARDED_BY(mutex_) = absl::UnixEpoch() + absl::Hours(1);
};

}  // namespace longembed

#endif  // LONGEMBED_TESTS_TESTING_FAKE_CLOCK_H_
