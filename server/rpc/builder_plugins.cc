#include "server/rpc/builder_plugins.h"

#include <google/protobuf/stubs/logging.h>
#include <grpc/impl/codegen/compression_types.h>
#include <grpc/support/log.h>
#include <grpcpp/impl/server_builder_option.h>
#include <grpcpp/impl/server_builder_plugin.h>

#include <memory>
#include <string>
#include <vector>

#include "server/telemetry/log.h"

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

// Logs gRPC's own messages, at most one a second, because any client can cause them, for example by a failed handshake.
void LogForGrpc(gpr_log_func_args* line) {
  static LogSampler sampler;
  int64_t suppressed = 0;
  if (!sampler.Take(suppressed)) return;
  Log(line->severity == GPR_LOG_SEVERITY_ERROR ? LogLevel::kWarning : LogLevel::kDebug, "grpc",
      {{"says", std::string(line->message)}, {"suppressed", suppressed}});
}

}  // namespace

void TakeOverLogs() {
  gpr_set_log_function(&LogForGrpc);
  google::protobuf::SetLogHandler(nullptr);  // It logs each malformed request; the client gets the error.
}

void SetKeepalive(grpc::ServerBuilder& builder, absl::Duration keepalive) {
  const auto set = [&builder](const char* argument, absl::Duration duration) {
    builder.AddChannelArgument(argument, static_cast<int>(absl::ToInt64Milliseconds(duration)));
  };
  set(GRPC_ARG_KEEPALIVE_TIME_MS, keepalive);
  set(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, absl::Seconds(20));
  // Clients commonly ping every 30 s. By default gRPC would cut off those that ping more than once in 5 minutes.
  set(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, absl::Seconds(15));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
}

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
