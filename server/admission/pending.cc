#include "server/admission/pending.h"

#include <algorithm>
#include <utility>

#include "server/errors/errors.h"

namespace longembed {
namespace {

constexpr absl::Duration kRetry = absl::Milliseconds(200);

}  // namespace

PendingCall::~PendingCall() {
  const std::lock_guard lock(calls_.mutex_);
  calls_.bytes_ -= bytes_;
  const auto client = calls_.clients_.find(client_);
  client->second.bytes -= bytes_;
  client->second.calls -= own_calls_;
  if (--client->second.parts == 0) calls_.clients_.erase(client);
}

void PendingCall::Add(int64_t bytes) {
  const std::lock_guard lock(calls_.mutex_);
  bytes_ += bytes;
  calls_.bytes_ += bytes;
  calls_.clients_[client_].bytes += bytes;
}

absl::Status PendingCalls::CheckRoom(const std::string& client, int64_t bytes) const {
  if (bytes_ > 0 && bytes_ + bytes > max_bytes_) return TooManyPendingBytes(bytes_, max_bytes_, kRetry);
  const auto found = clients_.find(client);
  const int64_t own = found == clients_.end() ? 0 : found->second.bytes;
  if (own > kShare * std::max<int64_t>(0, max_bytes_ - bytes_ - bytes)) {
    return TooManyPendingBytesOfClient(own, max_bytes_, kRetry);
  }
  return absl::OkStatus();
}

std::unique_ptr<PendingCall> PendingCalls::Take(const std::string& client, int64_t bytes, int64_t own_calls) {
  std::unique_ptr<PendingCall> taken(new PendingCall(*this, client, bytes, own_calls));
  Client& own = clients_[client];
  own.calls += own_calls;
  own.bytes += bytes;
  ++own.parts;
  bytes_ += bytes;
  return taken;
}

absl::StatusOr<std::unique_ptr<PendingCall>> PendingCalls::Begin(const std::string& client, int64_t bytes,
                                                                 int64_t max_calls) {
  const std::lock_guard lock(mutex_);
  if (absl::Status status = CheckRoom(client, bytes); !status.ok()) return status;
  const auto found = clients_.find(client);
  const int64_t calls = found == clients_.end() ? 0 : found->second.calls;
  if (max_calls > 0 && calls >= max_calls) return TooManyConcurrentCalls(calls, max_calls, kRetry);
  return Take(client, bytes, /*own_calls=*/1);
}

absl::StatusOr<std::unique_ptr<PendingCall>> PendingCalls::Hold(const std::string& client, int64_t bytes) {
  const std::lock_guard lock(mutex_);
  if (absl::Status status = CheckRoom(client, bytes); !status.ok()) return status;
  return Take(client, bytes, /*own_calls=*/0);
}

bool PendingCalls::HasRoom(const std::string& client) const {
  const std::lock_guard lock(mutex_);
  return CheckRoom(client, max_bytes_ / 16).ok();
}

int64_t PendingCalls::bytes() const {
  const std::lock_guard lock(mutex_);
  return bytes_;
}

}  // namespace longembed
