// Selects gRPC's built-in services.
#ifndef LONGEMBED_SERVER_RPC_BUILDER_PLUGINS_H_
#define LONGEMBED_SERVER_RPC_BUILDER_PLUGINS_H_

#include <grpcpp/server_builder.h>

#include "absl/time/time.h"

namespace longembed {

struct BuilderPlugins {
  bool channelz = false;
};

// Removes services that are not wanted from a server. Channelz, once enabled, joins every server of the process. gRPC's
// own reflection would join wherever its library is loaded; we serve our own (reflection.h).
void SelectPlugins(grpc::ServerBuilder& builder, const BuilderPlugins& wanted);

// Closes the connections of clients that went away without closing them, and does not cut off clients that ping.
void SetKeepalive(grpc::ServerBuilder& builder, absl::Duration keepalive);

// Passes what gRPC and protobuf log on to the server's own log. Repeated calls change nothing.
void TakeOverLogs();

// Turns compression off. gRPC would inflate a compressed message before authentication and without a limit: it checks
// only the compressed length, and 17 MB of zeros became 17 GB.
void RefuseCompression(grpc::ServerBuilder& builder);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_BUILDER_PLUGINS_H_
