// The listening server: our service, grpc.health.v1 for it, reflection where wanted, and an orderly end.
#ifndef LONGEMBED_SERVER_RPC_GRPC_SERVER_H_
#define LONGEMBED_SERVER_RPC_GRPC_SERVER_H_

#include <grpcpp/server.h>

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/config/config.h"
#include "server/rpc/embedding_service.h"
#include "server/rpc/tei_service.h"

namespace longembed {

// Starts with health NOT_SERVING.
class GrpcServer {
 public:
  // Errors: UNAVAILABLE when it cannot listen; of config.tei, NOT_FOUND and INVALID_ARGUMENT.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const ServerConfig& config, const ServiceContext& context);

  int port() const { return port_; }

  // Whether tei.v1 is served.
  bool has_tei() const { return tei_.has_value(); }

  // What health says of "" and of every service.
  void SetServing(bool serving);

  // Refuses new calls, lets running ones finish, and cuts off what still runs after `timeout`.
  void Shutdown(absl::Duration timeout);

 private:
  explicit GrpcServer(const ServiceContext& context) : context_(context), service_(context) {}
  absl::Status AddTei(const TeiConfig& config);

  const ServiceContext context_;
  EmbeddingServiceImpl service_;
  std::optional<TeiServices> tei_;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_GRPC_SERVER_H_
