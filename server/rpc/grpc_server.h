// The listening server: our services, grpc.health.v1 for them, reflection and channelz where wanted, and an orderly
// end.
#ifndef LONGEMBED_SERVER_RPC_GRPC_SERVER_H_
#define LONGEMBED_SERVER_RPC_GRPC_SERVER_H_

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/config/config.h"
#include "server/net/acceptor.h"
#include "server/rpc/connection_intake.h"
#include "server/rpc/embedding_service.h"
#include "server/rpc/health.h"
#include "server/rpc/message_stream.h"
#include "server/rpc/service_context.h"
#include "server/rpc/tei_service.h"
#include "server/security/certificates.h"

namespace longembed {

// Starts with health NOT_SERVING. Multiple threads can call its methods without external synchronization.
class GrpcServer {
 public:
  // Accepts what `listening` listens for. `certificates` (null: plaintext) must outlive it. Errors: of config.tei,
  // NOT_FOUND and INVALID_ARGUMENT.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const ServerConfig& config, const ServiceContext& context,
                                                           CertificateStore* certificates,
                                                           std::unique_ptr<Acceptor> listening);
  // Cuts off what still runs.
  ~GrpcServer();

  int port() const { return acceptor_->port(); }

  // Whether tei.v1 is served.
  bool has_tei() const { return tei_.has_value(); }

  // Those whose health is to be set.
  std::vector<std::string> services() const;
  Health health() { return Health(*server_->GetHealthCheckService()); }
  void SetServing(bool serving) { health().SetServing(serving, services()); }

  // Refuses new calls, lets running ones finish and streams end what they have read, and cuts off what still runs after
  // `timeout`, or as soon as `hurry` (asked again and again, on another thread; may be null) says so. Streams of gRPC's
  // own services end with the last of our calls.
  void Shutdown(absl::Duration timeout, const std::function<bool()>& hurry = nullptr);

 private:
  explicit GrpcServer(const ServiceContext& context) : context_(context) { context_.streams = &streams_; }
  absl::Status AddTei(const TeiConfig& config);
  std::shared_ptr<grpc::ServerCredentials> MakeCredentials(CertificateStore* certificates);
  void RegisterServices(grpc::ServerBuilder& builder);
  void StartAccepting();
  void CutOffWhenDone(const std::stop_token& stop, const std::function<bool()>& hurry);

  ServiceContext context_;
  OpenStreams streams_;
  EmbeddingServiceImpl service_{context_};
  std::optional<TeiServices> tei_;
  std::shared_ptr<grpc::ServerCredentials> credentials_;
  std::unique_ptr<Acceptor> acceptor_;
  std::unique_ptr<ConnectionIntake> intake_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_GRPC_SERVER_H_
