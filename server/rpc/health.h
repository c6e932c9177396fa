// grpc.health.v1, on every port that serves it. We do not use gRPC's implementation, because it accepts any number of
// watches from any client, and neither metrics nor limits nor drains include them.
#ifndef LONGEMBED_SERVER_RPC_HEALTH_H_
#define LONGEMBED_SERVER_RPC_HEALTH_H_

#include <grpcpp/server.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "server/core/operation.h"
#include "server/net/acceptor.h"
#include "server/rpc/connection_intake.h"
#include "server/rpc/host_context.h"
#include "server/rpc/unknown_methods.h"
#include "system/mutex.h"

namespace longembed {

// Metadata of answers to Check while the server starts: the progress as text.
inline constexpr char kLoadingMetadata[] = "longembed-loading";

// The liveness service: whether the process should keep running. It is also SERVING while the server loads and drains.
inline constexpr char kLivenessService[] = "longembed.liveness";

// An observer of changes, which reads the new state itself. Called on any thread without locks held.
class HealthWatcher {
 public:
  virtual ~HealthWatcher() = default;
  virtual void Changed() = 0;
};

// The health of each service by name. "" and the server's services report readiness, kLivenessService reports liveness.
// Thread-safe.
class Health {
 public:
  // All services start as NOT_SERVING, except liveness, which is SERVING.
  explicit Health(const std::vector<std::string>& services);

  // Adds services as NOT_SERVING. Those that are present keep their state.
  void Add(const std::vector<std::string>& services);
  // Sets the state of all services except kLivenessService.
  void SetServing(bool serving);
  void SetLive(bool live);
  // Sets the progress of the start, in printable ASCII; "" once it is complete.
  void SetLoading(std::string loading);
  // Ends all present and future watches.
  void EndWatches();

  // Returns nullopt if the service is unknown.
  std::optional<bool> IsServing(const std::string& service) const;
  // Returns the names of all services, in quotes.
  std::vector<std::string> services() const;
  bool ended() const;
  std::string loading() const;
  // Adds a watcher of a client. Errors: RESOURCE_EXHAUSTED if there are too many, or if the client has its fair share
  // of them (fair_share.h). Health needs no key, so the share keeps one client from locking out the balancers.
  absl::Status Watch(const std::shared_ptr<HealthWatcher>& watcher, const std::string& client);

 private:
  struct Registered {
    std::weak_ptr<HealthWatcher> watcher;
    std::string client;
  };

  void Change(const std::function<void()>& change);

  mutable Mutex mutex_;
  std::map<std::string, bool> serving_ ABSL_GUARDED_BY(mutex_);
  std::vector<Registered> watchers_ ABSL_GUARDED_BY(mutex_);
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  std::string loading_ ABSL_GUARDED_BY(mutex_);
};

using RawHealthService = grpc::health::v1::Health::WithRawCallbackMethod_Check<
    grpc::health::v1::Health::WithRawCallbackMethod_Watch<grpc::health::v1::Health::Service>>;

// The service over gRPC. It needs no API key. Both arguments must outlive it.
class HealthService final : public RawHealthService {
 public:
  HealthService(Health& health, const HostContext& host);

  grpc::ServerUnaryReactor* Check(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                  grpc::ByteBuffer* response) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* Watch(grpc::CallbackServerContext* context,
                                                    const grpc::ByteBuffer* request) override;

 private:
  Health& health_;
  const HostContext host_;  // Without API keys.
  ApiMethod check_;
  const ApiMethod watch_;
};

// A port with grpc.health.v1 only, in plaintext and without keys, because the kubelet's probe supports neither TLS nor
// keys.
class HealthPort {
 public:
  // Starts the port. All arguments must outlive it. Errors: those of Acceptor::Listen.
  static absl::StatusOr<std::unique_ptr<HealthPort>> Start(const std::string& address, Health& health,
                                                           const HostContext& host);
  ~HealthPort();

  int port() const { return acceptor_->port(); }

 private:
  HealthPort(Health& health, const HostContext& host) : service_(health, host) {}

  std::unique_ptr<Acceptor> acceptor_;
  std::unique_ptr<ConnectionIntake> intake_;
  HealthService service_;
  UnknownMethods unknown_methods_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_HEALTH_H_
