// The parts of the server's process that need no model.
#ifndef LONGEMBED_SERVER_PROCESS_PROCESS_CONTEXT_H_
#define LONGEMBED_SERVER_PROCESS_PROCESS_CONTEXT_H_

#include <memory>

#include "server/admission/ledger.h"
#include "server/config/config.h"
#include "server/core/profiles.h"
#include "server/process/ports.h"
#include "server/process/secrets.h"
#include "server/process/start_checks.h"
#include "server/process/tracing.h"
#include "server/rpc/health.h"
#include "server/rpc/host_context.h"
#include "server/rpc/stream_host.h"
#include "server/telemetry/metrics.h"
#include "system/clock.h"
#include "system/host_limits.h"

namespace longembed {

// Sets up, before any model is loaded, what all models and servers share. Its parts refer to each other.
struct ProcessContext {
  ProcessContext(const ServerConfig& config, const BuildInfo& build);
  ProcessContext(const ProcessContext&) = delete;
  ProcessContext& operator=(const ProcessContext&) = delete;

  // Opens what the config names, and checks it against the machine. Adds every problem that it finds.
  void Open(const ServerConfig& config, Problems& problems);

  const HostLimits limits = ReadHostLimits();
  const RealClock clock;
  const BuildInfo build;
  Metrics metrics;
  Ledger ledger;
  const Registration held_bytes = metrics.ReadHeldBytes([this] { return ledger.held(); });
  std::unique_ptr<Tracing> tracing;  // Null if tracing is off. Outlives every call.
  OpenStreams streams;
  Health health;
  HostContext calls;
  Ports ports;
  Secrets secrets;
  Profiles profiles;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_PROCESS_PROCESS_CONTEXT_H_
