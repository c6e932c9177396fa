#include "server/process/ports.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/telemetry/log.h"

namespace longembed {

void Ports::Open(const ServerConfig& config, const HostContext& calls, Health& state, Problems& problems) {
  const auto listen = [&](const char* key, const std::string& address) -> std::unique_ptr<Acceptor> {
    absl::StatusOr<std::unique_ptr<Acceptor>> acceptor =
        Acceptor::Listen(address, {.max_connections = config.connections.max,
                                   .max_client_share = config.connections.max_client_share,
                                   .silence = config.connections.handshake_timeout});
    problems.Add(key, acceptor.status());
    return acceptor.ok() ? *std::move(acceptor) : nullptr;
  };
  grpc = listen("listen", config.listen);
  if (!config.http_listen.empty()) http = listen("http_listen", config.http_listen);
  if (!config.health_listen.empty()) {
    absl::StatusOr<std::unique_ptr<HealthPort>> port = HealthPort::Start(config.health_listen, state, calls);
    problems.Add("health_listen", port.status());
    if (port.ok()) {
      health = *std::move(port);
      Log(LogLevel::kInfo, absl::StrCat("health on port ", health->port()));
    }
  }
  if (!config.metrics_listen.empty()) {
    const absl::StatusOr<int> port = calls.metrics.Listen(config.metrics_listen);
    problems.Add("metrics_listen", port.status());
    if (port.ok()) Log(LogLevel::kInfo, absl::StrCat("metrics on port ", *port));
  }
}

}  // namespace longembed
