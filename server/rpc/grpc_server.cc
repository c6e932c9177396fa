#include "server/rpc/grpc_server.h"

#include <google/protobuf/stubs/logging.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include "absl/strings/str_cat.h"
#include "grpc/health/v1/health.pb.h"
#include "model/errors/errors.h"
#include "model/text/prompt.h"

namespace longembed {
namespace {

// Clients that ping every 30 s are ordinary; gRPC would cut them off for pinging more than once in 5 minutes.
constexpr absl::Duration kLeastPingInterval = absl::Seconds(15);

// Above our own limit, whose refusal has words (REQUEST_TOO_LARGE): gRPC's says RESOURCE_EXHAUSTED, which would mean
// overload.
constexpr int64_t kReceiveMargin = 1 << 20;

void Configure(grpc::ServerBuilder& builder, const LimitsConfig& limits) {
  builder.SetMaxReceiveMessageSize(static_cast<int>(limits.max_request_bytes + kReceiveMargin));
  builder.SetMaxSendMessageSize(-1);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // A taken port is an error, not a second server.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             static_cast<int>(absl::ToInt64Milliseconds(kLeastPingInterval)));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
}

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const ServerConfig& config,
                                                              const ServiceContext& context) {
  google::protobuf::SetLogHandler(nullptr);  // It logs a line for each malformed request; the client gets the words.
  grpc::EnableDefaultHealthCheckService(true);
  if (config.reflection) {
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    // Mentioned, so that it is linked in and reflection can describe the health service too.
    grpc::health::v1::HealthCheckRequest::descriptor();
  }
  std::unique_ptr<GrpcServer> server(new GrpcServer(context));
  grpc::ServerBuilder builder;
  Configure(builder, config.limits);
  builder.AddListeningPort(config.listen, grpc::InsecureServerCredentials(), &server->port_);
  builder.RegisterService(&server->service_);
  if (const absl::Status status = server->AddTei(config.tei); !status.ok()) return status;
  if (TeiServices* const tei = server->tei_ ? &*server->tei_ : nullptr; tei != nullptr) {
    for (grpc::Service* service :
         std::initializer_list<grpc::Service*>{&tei->info, &tei->embed, &tei->tokenize, &tei->predict, &tei->rerank}) {
      builder.RegisterService(service);
    }
  }
  server->server_ = builder.BuildAndStart();
  if (server->server_ == nullptr || server->port_ == 0) {
    return absl::UnavailableError(absl::StrCat("cannot listen on ", config.listen,
                                               ": is another server there? Choose another port under `listen`"));
  }
  server->SetServing(false);
  return server;
}

absl::Status GrpcServer::AddTei(const TeiConfig& config) {
  if (config.model.empty() && context_.models.models().size() != 1) {
    if (config.default_prompt.empty()) return absl::OkStatus();
    return absl::InvalidArgumentError("tei.default_prompt is set, but with several models tei.model has to name one");
  }
  const absl::StatusOr<ServedModel*> model = context_.models.Find(config.model, "tei.model");
  if (!model.ok()) return model.status();
  std::string prompt;
  if (!config.default_prompt.empty()) {
    const absl::StatusOr<std::string> found =
        ResolvePrompt((*model)->model().manifest, PromptName{config.default_prompt});
    if (!found.ok()) return AtField(found.status(), "tei.default_prompt");
    prompt = *found;
  }
  tei_.emplace(TeiContext{
      .service = context_, .model = **model, .default_prompt = std::move(prompt), .version = LONGEMBED_VERSION});
  return absl::OkStatus();
}

void GrpcServer::SetServing(bool serving) {
  auto* health = server_->GetHealthCheckService();
  health->SetServingStatus(serving);  // "".
  health->SetServingStatus(v1::EmbeddingService::service_full_name(), serving);
  if (!tei_) return;
  for (const char* service : {tei::v1::Info::service_full_name(), tei::v1::Embed::service_full_name(),
                              tei::v1::Tokenize::service_full_name()}) {
    health->SetServingStatus(service, serving);
  }
}

void GrpcServer::Shutdown(absl::Duration timeout) {
  server_->Shutdown(absl::ToChronoTime(absl::Now() + timeout));
  server_->Wait();
}

}  // namespace longembed
