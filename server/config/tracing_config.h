// The endpoint that spans are exported to, and the sampling of calls.
#ifndef LONGEMBED_SERVER_CONFIG_TRACING_CONFIG_H_
#define LONGEMBED_SERVER_CONFIG_TRACING_CONFIG_H_

#include <string>

#include "absl/status/statusor.h"

namespace longembed {

struct TracingConfig {
  std::string endpoint;      // Address of an OTLP/gRPC collector. Empty: the environment's, else no tracing.
  double sample_ratio = 1;   // Fraction of calls traced, among those without a traceparent.
  std::string service_name;  // Empty: the environment's, else "longembed-server".
};

struct OtlpEndpoint {
  std::string address;  // HOST:PORT.
  bool tls = false;
};

// Parses HOST:PORT, http://HOST:PORT or https://HOST:PORT. The port may be left out. Errors: INVALID_ARGUMENT.
absl::StatusOr<OtlpEndpoint> ParseOtlpEndpoint(const std::string& endpoint);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_CONFIG_TRACING_CONFIG_H_
