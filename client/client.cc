#include "client/client.h"

#include <grpcpp/client_context.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "system/return_if_error.h"

namespace longembed::client {

Client::Client(const ClientOptions& options)
    : api_key_(options.api_key), channel_(OpenChannel(options)), stub_(v1::EmbeddingService::NewStub(channel_)) {}

absl::Status Client::Authorize(grpc::ClientContext& context) const {
  // gRPC aborts the process if a header contains other bytes.
  if (!std::all_of(api_key_.begin(), api_key_.end(), &absl::ascii_isprint)) {
    return absl::InvalidArgumentError("api_key: must be printable ASCII");
  }
  if (!api_key_.empty()) context.AddMetadata("authorization", absl::StrCat("Bearer ", api_key_));
  return absl::OkStatus();
}

template <typename Response, typename Invoke>
absl::StatusOr<Response> Client::Call(const CallOptions& options, Invoke invoke) {
  grpc::ClientContext context;
  RETURN_IF_ERROR(Authorize(context));
  if (options.timeout != absl::InfiniteDuration()) {
    context.set_deadline(absl::ToChronoTime(absl::Now() + options.timeout));
  }
  const std::stop_callback cancel(options.stop, [&context] { context.TryCancel(); });
  Response response;
  const grpc::Status status = invoke(&context, &response);
  if (status.ok()) return response;
  if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED && status.error_details().empty()) {
    return absl::DeadlineExceededError(absl::StrCat("no answer within ", absl::FormatDuration(options.timeout)));
  }
  return ToStatus(status);
}

absl::StatusOr<v1::EmbedResponse> Client::Embed(const v1::EmbedRequest& request, const CallOptions& options) {
  return Call<v1::EmbedResponse>(
      options, [&](auto* context, auto* response) { return stub_->Embed(context, request, response); });
}

absl::StatusOr<v1::ExplainResponse> Client::Explain(const v1::ExplainRequest& request, const CallOptions& options) {
  return Call<v1::ExplainResponse>(
      options, [&](auto* context, auto* response) { return stub_->Explain(context, request, response); });
}

absl::StatusOr<v1::TokenizeResponse> Client::Tokenize(const v1::TokenizeRequest& request, const CallOptions& options) {
  return Call<v1::TokenizeResponse>(
      options, [&](auto* context, auto* response) { return stub_->Tokenize(context, request, response); });
}

absl::StatusOr<v1::ListModelsResponse> Client::ListModels(const CallOptions& options) {
  return Call<v1::ListModelsResponse>(
      options, [&](auto* context, auto* response) { return stub_->ListModels(context, {}, response); });
}

absl::StatusOr<v1::Model> Client::GetModel(const v1::GetModelRequest& request, const CallOptions& options) {
  return Call<v1::Model>(options,
                         [&](auto* context, auto* response) { return stub_->GetModel(context, request, response); });
}

absl::StatusOr<bool> Client::IsServing(const std::string& service, const CallOptions& options) {
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  const auto health = grpc::health::v1::Health::NewStub(channel_);
  const auto response = Call<grpc::health::v1::HealthCheckResponse>(
      options, [&](auto* context, auto* answer) { return health->Check(context, request, answer); });
  if (!response.ok()) return response.status();
  return response->status() == grpc::health::v1::HealthCheckResponse::SERVING;
}

}  // namespace longembed::client
