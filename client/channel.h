// Opens the channel to a server: address, TLS, message sizes, and gRPC's own retries of single calls. Stateless: any
// thread.
#ifndef LONGEMBED_CLIENT_CHANNEL_H_
#define LONGEMBED_CLIENT_CHANNEL_H_

#include <grpcpp/channel.h>

#include <memory>
#include <string>

#include "absl/strings/string_view.h"

namespace longembed::client {

struct ClientOptions {
  std::string server = "127.0.0.1:50051";  // HOST:PORT, or any target that gRPC resolves.
  bool tls = false;
  std::string root_certificates;   // PEM; empty: the system's. With tls.
  std::string client_certificate;  // PEM, with client_key: for servers that ask for one (mTLS).
  std::string client_key;
  std::string api_key;  // Printable ASCII, sent as "authorization: Bearer KEY"; empty: no key.
};

// Retries follow deploy/client/retry_service_config.json, and the server's grpc-retry-pushback-ms. EmbedStream has none
// of them: stream.h sends its inputs again itself. The environment's http_proxy, https_proxy and grpc_proxy are not
// used for a server on this machine.
std::shared_ptr<grpc::Channel> OpenChannel(const ClientOptions& options);

// Whether a target of gRPC's is on this machine: a loopback address, localhost or a Unix socket.
bool IsLocal(absl::string_view target);

}  // namespace longembed::client

#endif  // LONGEMBED_CLIENT_CHANNEL_H_
