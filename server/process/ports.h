// Every address that the server listens on, bound before models load.
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
  std::unique_ptr<Acceptor> grpc;      // Bound; accepts nothing until a GrpcServer has it.
  std::unique_ptr<Acceptor> http;      // The same, of an HttpServer. Null: not configured.
  std::unique_ptr<HealthPort> health;  // Null: not configured.

  // Health and metrics answer from here on, so that the kubelet and Prometheus see a server that starts. Adds a problem
  // for each address that is none or taken.
  // `calls`, `state` and all that they refer to must outlive the ports.
  void Open(const ServerConfig& config, const HostContext& calls, Health& state, Problems& problems);
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_PROCESS_PORTS_H_
