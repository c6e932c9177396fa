// The addresses that the server listens on. They are bound before models load.
#ifndef LONGEMBED_SERVER_PROCESS_PORTS_H_
#define LONGEMBED_SERVER_PROCESS_PORTS_H_

#include <memory>

#include "server/config/config.h"
#include "server/net/acceptor.h"
#include "server/process/start_checks.h"
#include "server/rpc/health.h"
#include "server/telemetry/metrics.h"

namespace longembed {

struct Ports {
  std::unique_ptr<Acceptor> grpc;      // Bound, but accepts nothing until a GrpcServer has it.
  std::unique_ptr<Acceptor> http;      // Likewise for an HttpServer. Null: not configured.
  std::unique_ptr<HealthPort> health;  // Null: not configured.

  // Binds all addresses. From then on health and metrics answer, so that the kubelet and Prometheus see that the server
  // is starting. Adds a problem for each address that is invalid or in use. `calls`, `state` and all that they refer to
  // must outlive the ports.
  void Open(const ServerConfig& config, const HostContext& calls, Health& state, Problems& problems);
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_PROCESS_PORTS_H_
