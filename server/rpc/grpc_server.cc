#include "server/rpc/grpc_server.h"

#include <grpc/grpc.h>
#include <grpcpp/ext/channelz_service_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>

#include <chrono>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "model/errors/errors.h"
#include "server/errors/errors.h"
#include "server/rpc/builder_plugins.h"
#include "server/rpc/call_record.h"
#include "server/rpc/tls_credentials.h"
#include "server/telemetry/log.h"

namespace longembed {
namespace {

// gRPC's limit is above the server's own, which gives a specific error (REQUEST_TOO_LARGE). gRPC's error would be
// RESOURCE_EXHAUSTED, which clients take for overload.
constexpr int64_t kReceiveMargin = 1 << 20;

void Configure(grpc::ServerBuilder& builder, const ServerConfig& config) {
  const ConnectionsConfig& connections = config.connections;
  const auto set = [&builder](const char* argument, absl::Duration duration) {
    builder.AddChannelArgument(argument, static_cast<int>(absl::ToInt64Milliseconds(duration)));
  };
  builder.SetMaxReceiveMessageSize(static_cast<int>(config.limits.max_request_bytes + kReceiveMargin));
  builder.SetMaxSendMessageSize(-1);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, connections.max_streams);
  set(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, connections.handshake_timeout);
  if (connections.max_age > absl::ZeroDuration()) set(GRPC_ARG_MAX_CONNECTION_AGE_MS, connections.max_age);
  if (connections.max_idle > absl::ZeroDuration()) set(GRPC_ARG_MAX_CONNECTION_IDLE_MS, connections.max_idle);
  SetKeepalive(builder, connections.keepalive);
  // Bytes that gRPC buffers for incomplete requests, which the ledger does not count.
  constexpr int64_t kQuotaMargin = 64 << 20;
  builder.SetResourceQuota(
      grpc::ResourceQuota("longembed").Resize(static_cast<size_t>(config.limits.max_pending_bytes + kQuotaMargin)));
}

void EnablePlugins(const ServerConfig& config) {
  TakeOverLogs();
  grpc::EnableDefaultHealthCheckService(false);  // We have our own (health.h).
  if (config.channelz) grpc::channelz::experimental::InitChannelzService();
}

// Returns the names of what a server with these services offers, apart from reflection.
std::vector<std::string> NamesOf(const Services& services, bool channelz) {
  std::vector<std::string> names{grpc::health::v1::Health::service_full_name()};
  for (const NamedService& named : services) names.push_back(named.name);
  if (channelz) names.emplace_back("grpc.channelz.v1.Channelz");
  return names;
}

}  // namespace

absl::Status GrpcServer::Start(const Services& services, Health& health, std::unique_ptr<Acceptor> listening,
                               CertificateStore* certificates) {
  EnablePlugins(config_);
  acceptor_ = std::move(listening);
  health_ = &health;
  health_service_ = std::make_unique<HealthService>(health, context_);
  grpc::ServerBuilder builder;
  Configure(builder, config_);
  SelectPlugins(builder, {.channelz = config_.channelz});
  RefuseCompression(builder);
  credentials_ = MakeCredentials(certificates);
  intake_ = std::make_unique<ConnectionIntake>(builder, credentials_);
  builder.RegisterService(health_service_.get());
  for (const NamedService& named : services) builder.RegisterService(named.service);
  if (config_.reflection) {
    reflection_ = std::make_unique<Reflection>(NamesOf(services, config_.channelz), context_);
    for (const NamedService& named : reflection_->services()) builder.RegisterService(named.service);
  }
  builder.RegisterCallbackGenericService(&unknown_methods_);
  server_ = builder.BuildAndStart();
  if (server_ == nullptr) return absl::InternalError("gRPC cannot build the server");
  StartAccepting();
  return absl::OkStatus();
}

void GrpcServer::StartAccepting() {
  acceptor_->Start({.accept =
                        [this](int descriptor) {
                          context_.metrics.CountConnection();
                          intake_->Take(descriptor);
                        },
                    .refuse = [this](Refusal refusal) { context_.metrics.CountRefusedConnection(ReasonOf(refusal)); }});
}

// Our own services check keys themselves, to give better errors and to identify the caller. The guard checks keys for
// gRPC's (channelz).
std::shared_ptr<grpc::ServerCredentials> GrpcServer::MakeCredentials(CertificateStore* certificates) {
  if (certificates == nullptr) return grpc::InsecureServerCredentials();
  if (context_.api_keys == nullptr) return MakeTlsCredentials(*certificates, nullptr);
  return MakeTlsCredentials(*certificates, [&context = context_](std::string_view path, std::string_view authorization,
                                                                 std::string_view key) {
    for (const char* open : {"/grpc.health.v1.Health/", "/grpc.reflection.", "/longembed.v1.", "/tei.v1."}) {
      if (absl::StartsWith(std::string(path), open)) return absl::OkStatus();
    }
    return CheckApiKey(authorization, key, *context.api_keys, context.metrics).status();
  });
}

GrpcServer::~GrpcServer() {
  if (acceptor_ != nullptr) acceptor_->Stop();
  if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now());
}

void GrpcServer::Shutdown(absl::Duration timeout, const std::function<bool()>& is_forced) {
  acceptor_->Stop();
  context_.streams->Drain();
  health_->EndWatches();
  // gRPC also waits for connections that their clients never close.
  const std::jthread cut([this, &is_forced](const std::stop_token& stop) { CutOffWhenDone(stop, is_forced); });
  server_->Shutdown(std::chrono::system_clock::now() + absl::ToChronoMicroseconds(timeout));
  server_->Wait();
}

void GrpcServer::CutOffWhenDone(const std::stop_token& stop, const std::function<bool()>& is_forced) {
  constexpr absl::Duration kPollInterval = absl::Milliseconds(20);
  // After this time without a call of ours the rest is cut off. By then answers have reached their clients, and idle
  // clients have received GOAWAY.
  constexpr absl::Duration kSilence = absl::Milliseconds(500);
  const Clock& clock = context_.clock;
  absl::Time last_busy = clock.Now();
  while (!stop.stop_requested()) {
    absl::SleepFor(kPollInterval);
    if (context_.metrics.in_flight() > 0 || context_.ledger.bytes() > 0) last_busy = clock.Now();
    const bool forced = is_forced && is_forced();
    if (forced || clock.Now() - last_busy >= kSilence) grpc_server_cancel_all_calls(server_->c_server());
  }
}

}  // namespace longembed
