// Sends spans to an OpenTelemetry collector over OTLP/gRPC. Only this file and its source know OTLP's messages.
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
  bool tls = false;                             // With gRPC's own root certificates, or those of `roots`.
  std::string roots;                            // PEM.
  std::map<std::string, std::string> headers;   // Sent with each request, such as a vendor's key.
  std::map<std::string, std::string> resource;  // Attributes of all spans, such as service.name.
  std::string version;                          // The server's version.
  absl::Duration timeout = absl::Seconds(10);   // For a request, including the connection.
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
