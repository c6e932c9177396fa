// Selects gRPC's built-in services.
#ifndef LONGEMBED_SERVER_RPC_BUILDER_PLUGINS_H_
#define LONGEMBED_SERVER_RPC_BUILDER_PLUGINS_H_

#include <grpcpp/server_builder.h>

namespace longembed {

struct BuilderPlugins {
  bool reflection = false;
  bool channelz = false;
};

// Both join every server of the process from the moment that their library is loaded, or was enabled once; this removes
// those that are not configured from one server.
void KeepPlugins(grpc::ServerBuilder& builder, const BuilderPlugins& wanted);

// Turns compression off. gRPC inflates a compressed message before authentication and without a limit: it checks the
// compressed length first, and 17 MB of zeros became 17 GB.
void RefuseCompression(grpc::ServerBuilder& builder);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_BUILDER_PLUGINS_H_
