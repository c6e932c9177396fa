// Tests that locks exclude each other, and that waits end by their predicate or by their timeout.
#include "system/mutex.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace longembed {
namespace {

class Counter {
 public:
  void Add() {
    {
      const MutexLock lock(mutex_);
      ++count_;
    }
    changed_.NotifyAll();
  }

  bool AwaitCount(int count, absl::Duration timeout) {
    MutexLock lock(mutex_);
    return changed_.WaitFor(lock, timeout,
                            [this, count]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return count_ >= count; });
  }

  int AddOutside() {
    MutexLock lock(mutex_);
    lock.unlock();
    Add();
    lock.lock();
    return count_;
  }

 private:
  Mutex mutex_;
  ConditionVariable changed_;
  int count_ ABSL_GUARDED_BY(mutex_) = 0;
};

TEST(MutexTest, ThreadsExcludeEachOther) {
  constexpr int kThreads = 4, kRounds = 2000;
  Counter counter;
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([&counter] {
        for (int round = 0; round < kRounds; ++round) counter.Add();
      });
    }
  }
  EXPECT_TRUE(counter.AwaitCount(kThreads * kRounds, absl::ZeroDuration()));
  EXPECT_FALSE(counter.AwaitCount(kThreads * kRounds + 1, absl::ZeroDuration()));
}

TEST(MutexTest, AWaitEndsByItsPredicate) {
  Counter counter;
  const std::jthread other([&counter] { counter.Add(); });
  EXPECT_TRUE(counter.AwaitCount(1, absl::InfiniteDuration()));
}

TEST(MutexTest, AWaitEndsByItsTimeout) {
  Counter counter;
  EXPECT_FALSE(counter.AwaitCount(1, absl::Milliseconds(1)));
}

TEST(MutexTest, ALockCanBeReleasedForAWhile) {
  Counter counter;
  EXPECT_EQ(counter.AddOutside(), 1);
}

}  // namespace
}  // namespace longembed
