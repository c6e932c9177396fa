#include "server/admission/pending.h"

#include <utility>

#include "server/errors/errors.h"

namespace longembed {

PendingCall::~PendingCall() {
  const std::lock_guard lock(calls_.mutex_);
  calls_.bytes_ -= bytes_;
  const auto client = calls_.calls_.find(client_);
  if (--client->second == 0) calls_.calls_.erase(client);
}

void PendingCall::Add(int64_t bytes) {
  const std::lock_guard lock(calls_.mutex_);
  bytes_ += bytes;
  calls_.bytes_ += bytes;
}

absl::StatusOr<std::unique_ptr<PendingCall>> PendingCalls::Begin(const std::string& client, int64_t bytes,
                                                                 int64_t max_calls) {
  constexpr absl::Duration kRetry = absl::Milliseconds(200);
  const std::lock_guard lock(mutex_);
  if (bytes_ > 0 && bytes_ + bytes > max_bytes_) return TooManyPendingBytes(bytes_, max_bytes_, kRetry);
  int64_t& own = calls_[client];
  if (max_calls > 0 && own >= max_calls) return TooManyConcurrentCalls(own, max_calls, kRetry);
  ++own;
  bytes_ += bytes;
  return std::unique_ptr<PendingCall>(new PendingCall(*this, client, bytes));
}

int64_t PendingCalls::bytes() const {
  const std::lock_guard lock(mutex_);
  return bytes_;
}

}  // namespace longembed
