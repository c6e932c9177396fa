// The endpoint that spans are exported to, and the sampling of calls.
#ifndef LONGEMBED_SERVER_CONFIG_TRACING_CONFIG_H_
#define LONGEMBED_SERVER_CONFIG_TRACING_CONFIG_H_

#include <string>

#include "absl/status/statusor.h"

namespace longembed {

struct TracingConfig {
  std::string endpoint;      // Of an OTLP/gRPC collector. Empty: the environment's, else no tracing.
  double sample_ratio = 1;   // Share of the calls without a traceparent that is traced.
  std::string service_name;  // Empty: the environment's, else "longembed-server".
};

struct OtlpEndpoint {
  std::string address;  // HOST:PORT.
  bool tls = false;
};

// Reads HOST:PORT, http://HOST:PORT or https://HOST:PORT; the port may be left out. Errors: INVALID_ARGUMENT.
absl::StatusOr<OtlpEndpoint> ParseOtlpEndpoint(const std::string& endpoint);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_CONFIG_TRACING_CONFIG_H_
