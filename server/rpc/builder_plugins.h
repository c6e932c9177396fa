// Which of gRPC's own services a server has.
#ifndef LONGEMBED_SERVER_RPC_BUILDER_PLUGINS_H_
#define LONGEMBED_SERVER_RPC_BUILDER_PLUGINS_H_

#include <grpcpp/server_builder.h>

namespace longembed {

struct BuilderPlugins {
  bool reflection = false;
  bool channelz = false;
};

// Both join every server of the process from the moment that their library is loaded, or was asked for once; this takes
// those that are not wanted out of one server.
void KeepPlugins(grpc::ServerBuilder& builder, const BuilderPlugins& wanted);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_BUILDER_PLUGINS_H_
