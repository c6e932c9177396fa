#include "client/client.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <optional>

#include "absl/random/random.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"

namespace longembed::client {
namespace {

std::shared_ptr<grpc::Channel> MakeChannel(const ClientOptions& options) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);        // Vectors of many inputs go far beyond the default of 4 MB.
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);  // Our own: two layers of retries would multiply.
  // A server that vanished without a word is found out.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  auto credentials = options.tls ? grpc::SslCredentials({.pem_root_certs = options.root_certificates,
                                                         .pem_private_key = options.client_key,
                                                         .pem_cert_chain = options.client_certificate})
                                 : grpc::InsecureChannelCredentials();
  return grpc::CreateCustomChannel(options.server, credentials, arguments);
}

}  // namespace

absl::Status ToStatus(const grpc::Status& status) {
  std::string message = status.error_message();
  google::rpc::Status details;
  google::rpc::BadRequest bad_request;
  if (details.ParseFromString(status.error_details())) {
    for (const auto& any : details.details()) any.UnpackTo(&bad_request);
  }
  for (const auto& violation : bad_request.field_violations()) {
    if (absl::StrContains(message, violation.field())) continue;
    absl::StrAppend(&message, " (", violation.field(), ": ", violation.description(), ")");
  }
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), message);
}

Client::Client(const ClientOptions& options)
    : options_(options), channel_(MakeChannel(options)), stub_(v1::EmbeddingService::NewStub(channel_)) {}

void Client::Authorize(grpc::ClientContext& context) const {
  if (!options_.api_key.empty()) context.AddMetadata("authorization", absl::StrCat("Bearer ", options_.api_key));
}

absl::StatusOr<bool> Client::IsServing(const std::string& service, const CallOptions& options) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + options.timeout));
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  grpc::health::v1::HealthCheckResponse response;
  const grpc::Status status = grpc::health::v1::Health::NewStub(channel_)->Check(&context, request, &response);
  if (!status.ok()) return ToStatus(status);
  return response.status() == grpc::health::v1::HealthCheckResponse::SERVING;
}

template <typename Request, typename Response>
absl::StatusOr<Response> Client::Call(Method<Request, Response> method, const Request& request,
                                      const CallOptions& options) {
  const absl::Time deadline = absl::Now() + options.timeout;
  thread_local absl::BitGen random;
  for (int attempt = 1;; ++attempt) {
    grpc::ClientContext context;
    if (deadline != absl::InfiniteFuture()) context.set_deadline(absl::ToChronoTime(deadline));
    Authorize(context);
    Response response;
    const grpc::Status status = (stub_.get()->*method)(&context, request, &response);
    if (status.ok()) return response;
    const std::optional<absl::Duration> delay = DelayBeforeRetry(
        options_.retry, attempt, status.error_code(), ReadPushback(context, status), absl::Uniform(random, 0.0, 1.0));
    if (!delay.has_value() || absl::Now() + *delay >= deadline) return ToStatus(status);
    absl::SleepFor(*delay);
  }
}

absl::StatusOr<v1::EmbedResponse> Client::Embed(const v1::EmbedRequest& request, const CallOptions& options) {
  return Call<v1::EmbedRequest, v1::EmbedResponse>(&v1::EmbeddingService::Stub::Embed, request, options);
}

absl::StatusOr<v1::ExplainResponse> Client::Explain(const v1::ExplainRequest& request, const CallOptions& options) {
  return Call<v1::ExplainRequest, v1::ExplainResponse>(&v1::EmbeddingService::Stub::Explain, request, options);
}

absl::StatusOr<v1::TokenizeResponse> Client::Tokenize(const v1::TokenizeRequest& request, const CallOptions& options) {
  return Call<v1::TokenizeRequest, v1::TokenizeResponse>(&v1::EmbeddingService::Stub::Tokenize, request, options);
}

absl::StatusOr<v1::ListModelsResponse> Client::ListModels(const CallOptions& options) {
  return Call<v1::ListModelsRequest, v1::ListModelsResponse>(&v1::EmbeddingService::Stub::ListModels, {}, options);
}

absl::StatusOr<v1::Model> Client::GetModel(const v1::GetModelRequest& request, const CallOptions& options) {
  return Call<v1::GetModelRequest, v1::Model>(&v1::EmbeddingService::Stub::GetModel, request, options);
}

}  // namespace longembed::client
