// Server credentials over gRPC's C API. Their certificates follow a CertificateStore, without a restart and without any
// effect on open connections. (gRPC 1.51's C++ file watcher would accept a key that does not belong to its certificate,
// and then reject every handshake.)
#ifndef LONGEMBED_SERVER_RPC_TLS_CREDENTIALS_H_
#define LONGEMBED_SERVER_RPC_TLS_CREDENTIALS_H_

#include <grpcpp/security/server_credentials.h>

#include <functional>
#include <memory>
#include <string_view>

#include "absl/status/status.h"
#include "server/security/certificates.h"

namespace longembed {

// Checks every call's metadata before gRPC passes it to any service, including gRPC's own (channelz).
// `path` is "/package.Service/Method". A missing header is empty. Called on any thread; must not block.
using CallGuard =
    std::function<absl::Status(std::string_view path, std::string_view authorization, std::string_view api_key)>;

// Creates the credentials. If the store has a client_ca, clients must present a certificate that it signed.
// `certificates` must outlive the server. `guard` may be null.
std::shared_ptr<grpc::ServerCredentials> MakeTlsCredentials(CertificateStore& certificates, CallGuard guard);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_TLS_CREDENTIALS_H_
