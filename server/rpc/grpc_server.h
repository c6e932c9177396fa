// The listening server: our services, grpc.health.v1 for them, reflection and channelz where wanted, and an orderly
// end.
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
#include "server/rpc/stream_host.h"
#include "server/security/certificates.h"

namespace longembed {

// Services of an API. They must outlive the server.
using Services = std::vector<grpc::Service*>;

// Multiple threads can call its methods without external synchronization.
class GrpcServer {
 public:
  // All must outlive it. The context is that of the hosts of its services; its streams are not null.
  GrpcServer(const ServerConfig& config, const HostContext& context) : config_(config), context_(context) {}
  // Cuts off what still runs.
  ~GrpcServer();

  // Accepts what `listening` listens for. `health` and `certificates` (null: plaintext) must outlive it. Errors:
  // INTERNAL, gRPC cannot build it.
  absl::Status Start(const Services& services, Health& health, std::unique_ptr<Acceptor> listening,
                     CertificateStore* certificates = nullptr);

  int port() const { return acceptor_->port(); }

  // Refuses new calls, lets running ones finish and streams end what they have read, and cuts off what still runs after
  // `timeout`, or as soon as `is_forced` (polled on another thread; may be null) returns true. Streams of
  // gRPC's own services end with the last of our calls.
  void Shutdown(absl::Duration timeout, const std::function<bool()>& is_forced = nullptr);

 private:
  std::shared_ptr<grpc::ServerCredentials> MakeCredentials(CertificateStore* certificates);
  void StartAccepting();
  void CutOffWhenDone(const std::stop_token& stop, const std::function<bool()>& is_forced);

  const ServerConfig& config_;
  const HostContext& context_;
  Health* health_ = nullptr;
  std::unique_ptr<HealthService> health_service_;
  std::shared_ptr<grpc::ServerCredentials> credentials_;
  std::unique_ptr<Acceptor> acceptor_;
  std::unique_ptr<ConnectionIntake> intake_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_GRPC_SERVER_H_
