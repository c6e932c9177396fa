#include "server/config/tracing_config.h"

#include <string_view>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace longembed {
namespace {

constexpr std::string_view kStandardPort = "4317";

// Splits HOST:PORT, [IPV6]:PORT or HOST. Returns false for any other text.
bool Divide(std::string_view address, std::string_view& host, std::string_view& port) {
  const bool bracketed = !address.empty() && address.front() == '[';
  const size_t host_end = bracketed ? address.find(']') + 1 : address.find(':');
  if (bracketed && host_end == 0) return false;
  host = address.substr(0, host_end);
  port = host_end < address.size() ? address.substr(host_end) : std::string_view();
  if (host.empty() || port.size() == 1 || (!port.empty() && port.front() != ':')) return false;
  port = port.empty() ? kStandardPort : port.substr(1);
  return true;
}

// Returns the endpoint for an error or a log, without a user's name, a password or a query, which may hold a key.
std::string WithoutSecrets(std::string_view endpoint) {
  const size_t begin = endpoint.find("//") == std::string_view::npos ? 0 : endpoint.find("//") + 2;
  const size_t query = endpoint.find('?'), at = endpoint.substr(0, query).rfind('@');
  const std::string_view host = endpoint.substr(0, query).substr(at == std::string_view::npos ? begin : at);
  return absl::StrCat(std::string(endpoint.substr(0, begin)), at == std::string_view::npos ? "" : "...",
                      std::string(host), query == std::string_view::npos ? "" : "?...");
}

bool IsPort(std::string_view text) {
  int port = 0;
  return text.find_first_not_of("0123456789") == std::string_view::npos && absl::SimpleAtoi(std::string(text), &port) &&
         port >= 1 && port <= 65535;
}

}  // namespace

absl::StatusOr<OtlpEndpoint> ParseOtlpEndpoint(const std::string& endpoint) {
  const bool tls = absl::StartsWith(endpoint, "https://");
  std::string_view address = endpoint, host, port;
  if (tls || absl::StartsWith(endpoint, "http://")) {
    address.remove_prefix(endpoint.find("//") + 2);
    if (!address.empty() && address.back() == '/') address.remove_suffix(1);
  }
  const bool plain = address.find_first_of("/?#@ \t\n") == std::string_view::npos;
  if (!plain || !Divide(address, host, port) || !IsPort(port)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "\"", WithoutSecrets(endpoint), "\" is not HOST:PORT, http://HOST:PORT or https://HOST:PORT of an OTLP/gRPC ",
        "collector, such as http://collector:4317"));
  }
  return OtlpEndpoint{.address = absl::StrCat(std::string(host), ":", std::string(port)), .tls = tls};
}

}  // namespace longembed
