// Serves GET /metrics over HTTP, for Prometheus.
#ifndef LONGEMBED_SERVER_TELEMETRY_METRICS_PORT_H_
#define LONGEMBED_SERVER_TELEMETRY_METRICS_PORT_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/net/acceptor.h"

struct MHD_Daemon;

namespace longembed {

// One thread accepts connections, and another one answers them all. A scraper that stalls or sends slowly holds one of
// a few connections for some seconds, and a bounded amount of memory.
class MetricsPort {
 public:
  // Starts the port. `scrape` returns the text to serve. It is called on the answering thread; what it refers to must
  // outlive the port. Errors: those of Acceptor::Listen.
  static absl::StatusOr<std::unique_ptr<MetricsPort>> Start(const std::string& address,
                                                            std::function<std::string()> scrape);
  ~MetricsPort();

  int port() const { return acceptor_->port(); }

 private:
  struct StopDaemon {
    void operator()(MHD_Daemon* daemon) const;
  };

  explicit MetricsPort(std::function<std::string()> scrape) : scrape_(std::move(scrape)) {}

  const std::function<std::string()> scrape_;
  std::unique_ptr<MHD_Daemon, StopDaemon> daemon_;
  std::unique_ptr<Acceptor> acceptor_;  // Destroyed first, because it hands connections to the daemon.
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_TELEMETRY_METRICS_PORT_H_
