// What grpc.health.v1 says, on every port that says it.
#ifndef LONGEMBED_SERVER_RPC_HEALTH_H_
#define LONGEMBED_SERVER_RPC_HEALTH_H_

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/net/acceptor.h"
#include "server/rpc/connection_intake.h"

namespace longembed {

// The service whose health says whether the process should go on at all: while it loads and drains, too.
inline constexpr char kLivenessService[] = "longembed.liveness";

// "" and the services that answer (readiness), and kLivenessService. Thread-safe.
class Health {
 public:
  explicit Health(grpc::HealthCheckServiceInterface& service) : service_(service) {}

  void SetServing(bool serving, const std::vector<std::string>& services);
  void SetLive(bool live) { service_.SetServingStatus(kLivenessService, live); }

 private:
  grpc::HealthCheckServiceInterface& service_;
};

// A port with grpc.health.v1 and nothing else, in plaintext, without keys: the kubelet's probe can do neither. Starts
// NOT_SERVING but alive.
class HealthPort {
 public:
  // Errors: as Acceptor::Listen.
  static absl::StatusOr<std::unique_ptr<HealthPort>> Start(const std::string& address);
  ~HealthPort();

  int port() const { return acceptor_->port(); }
  Health health() { return Health(*server_->GetHealthCheckService()); }

 private:
  HealthPort() = default;

  std::unique_ptr<Acceptor> acceptor_;
  std::unique_ptr<ConnectionIntake> intake_;
  grpc::CallbackGenericService
      others_;  // Every other method is UNIMPLEMENTED; gRPC builds no server without a service.
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_HEALTH_H_
