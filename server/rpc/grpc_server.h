// The gRPC server: our services, their health (grpc.health.v1), reflection and channelz if configured, and an orderly
// shutdown.
#ifndef LONGEMBED_SERVER_RPC_GRPC_SERVER_H_
#define LONGEMBED_SERVER_RPC_GRPC_SERVER_H_

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/config/config.h"
#include "server/net/acceptor.h"
#include "server/rpc/connection_intake.h"
#include "server/rpc/health.h"
#include "server/rpc/host_context.h"
#include "server/rpc/named_service.h"
#include "server/rpc/reflection.h"
#include "server/rpc/stream_host.h"
#include "server/rpc/unknown_methods.h"
#include "server/security/certificates.h"

namespace longembed {

// The server on `listen`. Once Start has returned, multiple threads can call the other methods without external
// synchronization.
class GrpcServer {
 public:
  // Both arguments must outlive the server. `context` is that of the hosts of its services; its `streams` must not be
  // null.
  GrpcServer(const ServerConfig& config, const HostContext& context) : config_(config), context_(context) {}
  // Cancels calls that still run.
  ~GrpcServer();

  // Serves the connections of `listening`. `health` and `certificates` (null: plaintext) must outlive the server.
  // Errors: INTERNAL if gRPC cannot build the server.
  absl::Status Start(const Services& services, Health& health, std::unique_ptr<Acceptor> listening,
                     CertificateStore* certificates = nullptr);

  int port() const { return acceptor_->port(); }

  // Rejects new calls, lets running calls finish and streams answer what they have read. Cancels what still runs after
  // `timeout`, or as soon as `is_forced` (polled on another thread; may be null) returns true.
  void Shutdown(absl::Duration timeout, const std::function<bool()>& is_forced = nullptr);

 private:
  std::shared_ptr<grpc::ServerCredentials> MakeCredentials(CertificateStore* certificates);
  void StartAccepting();
  void CutOffWhenDone(const std::stop_token& stop, const std::function<bool()>& is_forced);

  const ServerConfig& config_;
  const HostContext& context_;
  Health* health_ = nullptr;
  std::unique_ptr<HealthService> health_service_;
  std::unique_ptr<Reflection> reflection_;
  UnknownMethods unknown_methods_;
  std::shared_ptr<grpc::ServerCredentials> credentials_;
  std::unique_ptr<Acceptor> acceptor_;
  std::unique_ptr<ConnectionIntake> intake_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_GRPC_SERVER_H_
