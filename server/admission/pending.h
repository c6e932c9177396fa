// Bounds what calls hold before anything is known about them: the bytes of their requests and answers, and how many
// calls a client has. A client may hold at most kShare times the bytes that are still free (as in admission.h), so that
// there is always room for others.
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

// What one call, or one message of a stream, holds until it is destroyed.
class PendingCall {
 public:
  ~PendingCall();
  PendingCall(const PendingCall&) = delete;
  PendingCall& operator=(const PendingCall&) = delete;

  // What is more counted, such as an answer that the client has not taken; never refused.
  void Add(int64_t bytes);

 private:
  friend class PendingCalls;
  PendingCall(PendingCalls& calls, std::string client, int64_t bytes, int64_t own_calls)
      : calls_(calls), client_(std::move(client)), bytes_(bytes), own_calls_(own_calls) {}

  PendingCalls& calls_;
  const std::string client_;
  int64_t bytes_;            // Guarded by the lock of `calls`.
  const int64_t own_calls_;  // 1 for a call, 0 for a message.
};

// Multiple threads can use one PendingCalls without external synchronization.
class PendingCalls {
 public:
  explicit PendingCalls(int64_t max_bytes) : max_bytes_(max_bytes) {}

  // A call. Errors: RESOURCE_EXHAUSTED (errors.h). `max_calls`: of this client at a time; 0 = no limit of its own.
  absl::StatusOr<std::unique_ptr<PendingCall>> Begin(const std::string& client, int64_t bytes, int64_t max_calls);
  // A message of a stream, which is a call already. Errors: as Begin's, for the bytes.
  absl::StatusOr<std::unique_ptr<PendingCall>> Hold(const std::string& client, int64_t bytes);

  // Whether a few more bytes of the client's would be held.
  bool HasRoom(const std::string& client) const;

  int64_t bytes() const;

 private:
  friend class PendingCall;
  static constexpr int kShare = 4;

  struct Client {
    int64_t calls = 0;
    int64_t bytes = 0;
    int64_t parts = 0;  // PendingCalls of its.
  };

  absl::Status CheckRoom(const std::string& client, int64_t bytes) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::unique_ptr<PendingCall> Take(const std::string& client, int64_t bytes, int64_t own_calls)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int64_t max_bytes_;
  mutable std::mutex mutex_;
  int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::string, Client> clients_ ABSL_GUARDED_BY(mutex_);  // That hold anything.
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_ADMISSION_PENDING_H_
