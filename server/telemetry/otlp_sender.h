// Sends spans to an OpenTelemetry collector over OTLP/gRPC. The only file that knows OTLP's messages.
#ifndef LONGEMBED_SERVER_TELEMETRY_OTLP_SENDER_H_
#define LONGEMBED_SERVER_TELEMETRY_OTLP_SENDER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/telemetry/span_exporter.h"

namespace longembed {

struct OtlpOptions {
  std::string address;                          // HOST:PORT.
  bool tls = false;                             // With gRPC's own roots, or those of `roots`.
  std::string roots;                            // PEM.
  std::map<std::string, std::string> headers;   // Of each request: a vendor's key, say.
  std::map<std::string, std::string> resource;  // Attributes of everything that is sent: service.name.
  std::string version;                          // Of this server.
  absl::Duration timeout = absl::Seconds(10);   // Of a request, connecting included.
};

class OtlpSender final : public SpanSender {
 public:
  // Connects when there is something to send.
  explicit OtlpSender(const OtlpOptions& options);
  ~OtlpSender() override;

  absl::StatusOr<int64_t> Send(std::span<const Span> spans) override;
  void Cancel() override;

 private:
  struct State;
  const std::unique_ptr<State> state_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_TELEMETRY_OTLP_SENDER_H_
