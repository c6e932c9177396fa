// Opens the gRPC channel to a server. Sets its address, TLS, message size limits, and gRPC's own retries of unary
// calls. All functions are stateless and thread-safe.
#ifndef LONGEMBED_CLIENT_CHANNEL_H_
#define LONGEMBED_CLIENT_CHANNEL_H_

#include <grpcpp/channel.h>

#include <memory>
#include <string>

#include "absl/strings/string_view.h"

namespace longembed::client {

struct ClientOptions {
  std::string server = "127.0.0.1:50051";  // HOST:PORT, or any target that gRPC can resolve.
  bool tls = false;
  std::string root_certificates;  // PEM. Empty: the system's root certificates. Used with tls.
  // PEM. Set together with client_key, for servers that require a client certificate (mTLS).
  std::string client_certificate;
  std::string client_key;
  std::string api_key;  // Printable ASCII, sent as "authorization: Bearer KEY". Empty: no key.
};

// Opens a channel. Unary calls are retried as deploy/client/retry_service_config.json says, and honor the server's
// grpc-retry-pushback-ms. EmbedStream calls are not retried by gRPC; stream.h resends their inputs itself. For a server
// on this machine, the environment variables http_proxy, https_proxy and grpc_proxy are ignored.
std::shared_ptr<grpc::Channel> OpenChannel(const ClientOptions& options);

// Returns true if a gRPC target is on this machine: a loopback address, localhost or a Unix socket.
bool IsLocal(absl::string_view target);

}  // namespace longembed::client

#endif  // LONGEMBED_CLIENT_CHANNEL_H_
