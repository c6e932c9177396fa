#include "server/rpc/unary_call.h"

#include <grpcpp/server_context.h>

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/errors/errors.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/wire.h"

namespace longembed {

absl::Time DeadlineOf(const grpc::CallbackServerContext& context) {
  const auto deadline = context.deadline();
  return deadline == std::chrono::system_clock::time_point::max() ? absl::InfiniteFuture() : absl::FromChrono(deadline);
}

void AddRetryPushback(const absl::Status& status, grpc::CallbackServerContext& context) {
  const std::optional<absl::Duration> delay = RetryDelay(status);
  if (!delay.has_value()) return;
  context.AddTrailingMetadata("grpc-retry-pushback-ms", absl::StrCat(absl::ToInt64Milliseconds(*delay)));
}

UnaryCall::UnaryCall(std::string method, grpc::CallbackServerContext* context, grpc::ByteBuffer* response,
                     const Clock& clock, Metrics& metrics)
    : method_(std::move(method)),
      context_(context),
      response_(response),
      clock_(clock),
      metrics_(metrics),
      arrival_(clock.Now()) {
  metrics_.RequestStarted(method_);
}

void UnaryCall::Succeed(const google::protobuf::Message& response) {
  *response_ = SerializeMessage(response);
  Count(absl::StatusCode::kOk);
  Finish(grpc::Status::OK);
}

void UnaryCall::Fail(const absl::Status& status) {
  AddRetryPushback(status, *context_);
  Count(status.code());
  Finish(ToGrpcStatus(status));
}

absl::Time UnaryCall::deadline() const { return DeadlineOf(*context_); }

void UnaryCall::Count(absl::StatusCode code) {
  metrics_.RequestFinished(method_, absl::StatusCodeToString(code), model_, clock_.Now() - arrival_);
}

}  // namespace longembed
