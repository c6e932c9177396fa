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

// Returns the length of "http://" or "https://" at the beginning; 0 if there is neither.
size_t SchemeLength(const std::string& endpoint) {
  for (const std::string scheme : {"http://", "https://"}) {
    if (absl::StartsWith(endpoint, scheme)) return scheme.size();
  }
  return 0;
}

// Returns the endpoint for an error or a log, without a user's name, a password or a query, which may hold a key. All
// that is before an '@' may be a password, whatever characters it has.
std::string WithoutSecrets(const std::string& endpoint) {
  const size_t scheme = SchemeLength(endpoint), at = endpoint.rfind('@');
  const bool has_user = at != std::string::npos;
  const std::string rest = endpoint.substr(has_user ? at : scheme);
  const size_t query = rest.find('?');
  return absl::StrCat(endpoint.substr(0, scheme), has_user ? "..." : "", rest.substr(0, query),
                      query == std::string::npos ? "" : "?...");
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
  if (const size_t scheme = SchemeLength(endpoint); scheme > 0) {
    address.remove_prefix(scheme);
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
