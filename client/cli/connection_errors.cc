#include "client/cli/connection_errors.h"

#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/client.h"
#include "client/errors.h"

namespace longembed::client {
namespace {

enum class When { kAlways, kTls, kPlaintext };

// Parts of messages of gRPC 1.51 and OpenSSL, and our messages for them. Ours follow the server's address.
constexpr struct {
  const char* part;
  When when;
  const char* ours;
} kReasons[] = {
    {"wrong version number", When::kTls,
     "does not speak TLS: leave out --tls and the flags for certificates, or give the port that does"},
    {"certificate verify failed", When::kTls,
     "shows a certificate that is not trusted: give its authority as --root-certificates FILE"},
    {"not in peer certificate", When::kTls,
     "shows a certificate for another name: give one of its names as the host of --server"},
    {"empty address list", When::kTls,
     "was not tried: a file of --root-certificates, --client-certificate or --client-key holds no PEM that can be "
     "used"},
    {"Socket closed", When::kTls,
     "closed the connection: it may ask for --client-certificate and --client-key, or not speak TLS"},
    {"Connection reset", When::kTls,
     "closed the connection: it may ask for --client-certificate and --client-key, or not speak TLS"},
    {"Socket closed", When::kPlaintext, "closed the connection: if it speaks TLS, add --tls"},
    {"Connection reset", When::kPlaintext, "closed the connection: if it speaks TLS, add --tls"},
    {"http1.x server", When::kAlways,
     "speaks HTTP/1.1, not gRPC: give the port of gRPC, which is `listen` in the server's config"},
    {"Connection refused", When::kAlways, "refuses the connection: is the server running, and is --server right?"},
    {"DNS resolution failed", When::kAlways, "has a host name that is not known: is --server right?"},
};

std::string Words(const absl::Status& status, const ClientOptions& options) {
  const std::string theirs(status.message());
  // The table applies only to connections that could not be established, not to those that broke later.
  const bool failed_to_connect = absl::StrContains(theirs, "connections to all backends failing") ||
                                 absl::StrContains(theirs, "DNS resolution failed") ||
                                 absl::StrContains(theirs, "empty address list");
  for (const auto& [part, when, ours] : kReasons) {
    const bool applies = when == When::kAlways || (when == When::kTls) == options.tls;
    if (failed_to_connect && applies && absl::StrContains(theirs, part)) {
      return absl::StrCat("the server ", options.server, " ", ours);
    }
  }
  return absl::StrCat(theirs, " (is the server running, and is --server right?)");
}

}  // namespace

absl::Status ExplainConnection(const absl::Status& status, const ClientOptions& options) {
  if (!GetErrorDetails(status).reason.empty()) return status;  // It is the server's own, so the connection works.
  if (status.code() == absl::StatusCode::kUnavailable) return absl::UnavailableError(Words(status, options));
  if (status.code() != absl::StatusCode::kDeadlineExceeded) return status;
  Client client(options);
  const absl::Status again = client.IsServing("", {.timeout = absl::Seconds(1)}).status();
  return again.code() == absl::StatusCode::kUnavailable ? ExplainConnection(again, options) : status;
}

}  // namespace longembed::client
