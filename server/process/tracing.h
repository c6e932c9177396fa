// Sets up tracing from the config and the standard environment variables of OpenTelemetry.
#ifndef LONGEMBED_SERVER_PROCESS_TRACING_H_
#define LONGEMBED_SERVER_PROCESS_TRACING_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/time/time.h"
#include "server/config/tracing_config.h"
#include "server/telemetry/call_trace.h"
#include "server/telemetry/metrics.h"
#include "server/telemetry/otlp_sender.h"
#include "server/telemetry/span_exporter.h"

namespace longembed {

// Returns the value of an environment variable; empty if it is not set.
using VariableReader = std::function<std::string(const char* name)>;
VariableReader EnvironmentReader();

struct TracingSettings {
  OtlpOptions otlp;
  std::string refused;  // Reason for ignoring the environment; empty: it is used, or sets nothing.

  bool enabled() const { return !otlp.address.empty(); }
};

// Merges the config and the environment. Fields that `config` leaves empty come from
// OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_SERVICE_NAME. Also read: OTEL_SDK_DISABLED,
// OTEL_EXPORTER_OTLP_PROTOCOL, OTEL_EXPORTER_OTLP_HEADERS, OTEL_EXPORTER_OTLP_CERTIFICATE, OTEL_EXPORTER_OTLP_TIMEOUT
// (and their _TRACES_ forms) and OTEL_RESOURCE_ATTRIBUTES. An error in the environment never keeps the server from
// starting, because a platform may set it for all of its processes.
TracingSettings ResolveTracing(const TracingConfig& config, const VariableReader& environment,
                               const std::string& version);

// The tracer and its exporter.
class Tracing {
 public:
  // Starts tracing. Returns null if tracing is not configured. `metrics` must outlive it.
  static std::unique_ptr<Tracing> Start(const TracingConfig& config, const std::string& version, Metrics& metrics);

  Tracing(const OtlpOptions& options, double sample_ratio, Metrics& metrics);
  // Sends waiting spans, for a second at most.
  ~Tracing();

  const Tracer& tracer() const { return tracer_; }

 private:
  OtlpSender sender_;
  SpanExporter exporter_;
  const Tracer tracer_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_PROCESS_TRACING_H_
