#include "server/rpc/unary_call.h"

#include <utility>

#include "server/rpc/wire.h"

namespace longembed {

bool UnaryCall::Begin(const grpc::ByteBuffer& request) {
  if (const absl::Status status = record_.identity(); !status.ok()) {
    Fail(status);
    return false;
  }
  absl::StatusOr<std::unique_ptr<PendingCall>> pending = record_.Begin(static_cast<int64_t>(request.Length()));
  if (!pending.ok()) {
    Fail(pending.status());
    return false;
  }
  pending_ = *std::move(pending);
  return true;
}

void UnaryCall::Succeed(const google::protobuf::Message& response) {
  try {
    *response_ = SerializeMessage(response);
  } catch (const std::bad_alloc&) {
    return Fail(ServerOutOfMemory());
  }
  // Until the client has taken it.
  pending_->Add(static_cast<int64_t>(response_->Length()));
  Finish(record_.Finish(absl::OkStatus()));
}

void UnaryCall::Fail(const absl::Status& status) { Finish(record_.Finish(status)); }

}  // namespace longembed
