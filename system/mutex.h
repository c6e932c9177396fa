// Mutexes that clang's thread-safety analysis checks (tests/tidy/thread_safety.py): a variable declared
// ABSL_GUARDED_BY(mutex_) may be accessed only while mutex_ is held. They wrap std::mutex instead of absl::Mutex,
// because ThreadSanitizer understands std::mutex even if a distribution's absl is not instrumented.
#ifndef LONGEMBED_SYSTEM_MUTEX_H_
#define LONGEMBED_SYSTEM_MUTEX_H_

#include <condition_variable>
#include <mutex>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"

namespace longembed {

class ABSL_LOCKABLE Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() { mutex_.lock(); }
  void Unlock() ABSL_UNLOCK_FUNCTION() { mutex_.unlock(); }

 private:
  friend class MutexLock;
  std::mutex mutex_;
};

// Holds a mutex from construction to destruction, except between unlock() and lock(). These have the names that
// std::condition_variable_any needs. Used by one thread.
class ABSL_SCOPED_LOCKABLE MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) ABSL_EXCLUSIVE_LOCK_FUNCTION(mutex) : lock_(mutex.mutex_) {}
  ~MutexLock() ABSL_UNLOCK_FUNCTION() {}
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

  void lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() { lock_.lock(); }
  void unlock() ABSL_UNLOCK_FUNCTION() { lock_.unlock(); }

 private:
  friend class ConditionVariable;
  std::unique_lock<std::mutex> lock_;
};

// Waits for a predicate to become true. The predicate is evaluated while the lock is held: declare the lambda
// ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_). Multiple threads can use a ConditionVariable without external synchronization.
class ConditionVariable {
 public:
  // Waits for a notification. May also return without one (a spurious wakeup).
  void Wait(MutexLock& lock) { changed_.wait(lock.lock_); }
  void WaitFor(MutexLock& lock, absl::Duration timeout) {
    changed_.wait_for(lock.lock_, absl::ToChronoNanoseconds(timeout));
  }

  template <typename Predicate>
  void Wait(MutexLock& lock, Predicate predicate) {
    changed_.wait(lock.lock_, std::move(predicate));
  }

  // Waits until the predicate is true or the timeout has passed, and returns the predicate's value. With
  // InfiniteDuration there is no timeout.
  template <typename Predicate>
  bool WaitFor(MutexLock& lock, absl::Duration timeout, Predicate predicate) {
    if (timeout == absl::InfiniteDuration()) {
      Wait(lock, std::move(predicate));
      return true;
    }
    return changed_.wait_for(lock.lock_, absl::ToChronoNanoseconds(timeout), std::move(predicate));
  }

  void NotifyOne() { changed_.notify_one(); }
  void NotifyAll() { changed_.notify_all(); }

 private:
  std::condition_variable changed_;
};

}  // namespace longembed

#endif  // LONGEMBED_SYSTEM_MUTEX_H_
