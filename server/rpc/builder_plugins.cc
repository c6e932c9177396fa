#include "server/rpc/builder_plugins.h"

#include <grpc/impl/codegen/compression_types.h>
#include <grpcpp/impl/server_builder_option.h>
#include <grpcpp/impl/server_builder_plugin.h>

#include <memory>
#include <vector>

namespace longembed {
namespace {

class PluginFilter final : public grpc::ServerBuilderOption {
 public:
  explicit PluginFilter(const BuilderPlugins& wanted) : wanted_(wanted) {}

  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    std::erase_if(*plugins, [this](const std::unique_ptr<grpc::ServerBuilderPlugin>& plugin) {
      return plugin->name() == "proto_server_reflection" || (plugin->name() == "channelz_service" && !wanted_.channelz);
    });
  }

 private:
  const BuilderPlugins wanted_;
};

}  // namespace

void SelectPlugins(grpc::ServerBuilder& builder, const BuilderPlugins& wanted) {
  builder.SetOption(std::make_unique<PluginFilter>(wanted));
}

void RefuseCompression(grpc::ServerBuilder& builder) {
  for (const grpc_compression_algorithm algorithm : {GRPC_COMPRESS_DEFLATE, GRPC_COMPRESS_GZIP}) {
    builder.SetCompressionAlgorithmSupportStatus(algorithm, false);
  }
  // Without this the message is inflated even while its call is being rejected.
  builder.AddChannelArgument(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0);
}

}  // namespace longembed
