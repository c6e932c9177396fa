// Bounds what calls hold before anything is known about them: the bytes of their requests and answers, and how many a
// client has.
#ifndef LONGEMBED_SERVER_ADMISSION_PENDING_H_
#define LONGEMBED_SERVER_ADMISSION_PENDING_H_

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"

namespace longembed {

class PendingCalls;

// One call, from its arrival until it is destroyed.
class PendingCall {
 public:
  ~PendingCall();
  PendingCall(const PendingCall&) = delete;
  PendingCall& operator=(const PendingCall&) = delete;

  // What is more counted, such as an answer that the client has not taken; never refused.
  void Add(int64_t bytes);

 private:
  friend class PendingCalls;
  PendingCall(PendingCalls& calls, std::string client, int64_t bytes)
      : calls_(calls), client_(std::move(client)), bytes_(bytes) {}

  PendingCalls& calls_;
  const std::string client_;
  int64_t bytes_;  // Guarded by the lock of `calls`.
};

// Multiple threads can use one PendingCalls without external synchronization.
class PendingCalls {
 public:
  explicit PendingCalls(int64_t max_bytes) : max_bytes_(max_bytes) {}

  // Errors: RESOURCE_EXHAUSTED (errors.h). `max_calls`: of this client at a time; 0 = no limit of its own.
  absl::StatusOr<std::unique_ptr<PendingCall>> Begin(const std::string& client, int64_t bytes, int64_t max_calls);

  int64_t bytes() const;

 private:
  friend class PendingCall;

  const int64_t max_bytes_;
  mutable std::mutex mutex_;
  int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::string, int64_t> calls_ ABSL_GUARDED_BY(mutex_);  // Of clients that have any.
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_ADMISSION_PENDING_H_
