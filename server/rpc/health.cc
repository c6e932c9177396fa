#include "server/rpc/health.h"

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <utility>

#include "longembed/v1/embedding.grpc.pb.h"
#include "server/rpc/builder_plugins.h"

namespace longembed {

void Health::SetServing(bool serving, const std::vector<std::string>& services) {
  service_.SetServingStatus("", serving);
  for (const std::string& service : services) service_.SetServingStatus(service, serving);
}

absl::StatusOr<std::unique_ptr<HealthPort>> HealthPort::Start(const std::string& address) {
  constexpr int kMaxConnections = 128;  // Kubelets, balancers, people; kept small, as anybody can open them.
  absl::StatusOr<std::unique_ptr<Acceptor>> acceptor = Acceptor::Listen(address, {.max_connections = kMaxConnections});
  if (!acceptor.ok()) return acceptor.status();
  grpc::EnableDefaultHealthCheckService(true);
  std::unique_ptr<HealthPort> port(new HealthPort);
  port->acceptor_ = *std::move(acceptor);
  grpc::ServerBuilder builder;
  KeepPlugins(builder, {});
  RefuseCompression(builder);
  // The kubelet's probes hold a connection for one call each.
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, 60'000);
  port->intake_ = std::make_unique<ConnectionIntake>(builder, grpc::InsecureServerCredentials());
  builder.RegisterCallbackGenericService(&port->others_);
  port->server_ = builder.BuildAndStart();
  if (port->server_ == nullptr) return absl::InternalError("the health port's server cannot be built");
  Health health = port->health();
  health.SetServing(false, {v1::EmbeddingService::service_full_name()});
  health.SetLive(true);
  port->acceptor_->Start({.accept = [intake = port->intake_.get()](int descriptor) { intake->Take(descriptor); }});
  return port;
}

HealthPort::~HealthPort() {
  acceptor_->Stop();
  if (server_ == nullptr) return;
  server_->Shutdown(std::chrono::system_clock::now());
  server_->Wait();
}

}  // namespace longembed
