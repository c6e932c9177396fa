// Server credentials over gRPC's C API, whose certificates change with a CertificateStore, without a restart and
// without touching open connections. (gRPC 1.51's C++ file watcher would take a key that does not belong to its
// certificate, and refuse every handshake from then on.)
#ifndef LONGEMBED_SERVER_RPC_TLS_CREDENTIALS_H_
#define LONGEMBED_SERVER_RPC_TLS_CREDENTIALS_H_

#include <grpcpp/security/server_credentials.h>

#include <functional>
#include <memory>
#include <string_view>

#include "absl/status/status.h"
#include "server/security/certificates.h"

namespace longembed {

// Looks at every call's metadata before gRPC hands it to any service, gRPC's own (reflection, channelz) among them.
// `path` is "/package.Service/Method"; a header that is missing is empty. Any thread; must not block.
using CallGuard =
    std::function<absl::Status(std::string_view path, std::string_view authorization, std::string_view api_key)>;

// With a client_ca in the store, clients must show a certificate that it signed. `certificates` must outlive the
// server; `guard` may be null.
std::shared_ptr<grpc::ServerCredentials> MakeTlsCredentials(CertificateStore& certificates, CallGuard guard);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_TLS_CREDENTIALS_H_
