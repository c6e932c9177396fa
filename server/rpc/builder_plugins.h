// Selects gRPC's built-in services.
#ifndef LONGEMBED_SERVER_RPC_BUILDER_PLUGINS_H_
#define LONGEMBED_SERVER_RPC_BUILDER_PLUGINS_H_

#include <grpcpp/server_builder.h>

namespace longembed {

struct BuilderPlugins {
  bool channelz = false;
};

// Removes the services that are not wanted from a server. Otherwise, once enabled, channelz joins every server of the
// process, and gRPC's reflection (reflection.h has our own) where its library is loaded.
void SelectPlugins(grpc::ServerBuilder& builder, const BuilderPlugins& wanted);

// Turns compression off. gRPC would inflate a compressed message before authentication and without a limit: it checks
// only the compressed length, and 17 MB of zeros became 17 GB.
void RefuseCompression(grpc::ServerBuilder& builder);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_BUILDER_PLUGINS_H_
