// grpc.health.v1, on every port that serves it. Our own, because gRPC's takes any number of watches from any client,
// and no metric, limit or drain sees them.
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
#include "system/mutex.h"

namespace longembed {

// Metadata of an answer to Check while the server starts: how far that is, in words.
inline constexpr char kLoadingMetadata[] = "longembed-loading";

// The liveness service: whether the process should keep running; serving while it loads and drains, too.
inline constexpr char kLivenessService[] = "longembed.liveness";

// Observer of changes, which reads the new state itself. Called on any thread, without locks held.
class HealthWatcher {
 public:
  virtual ~HealthWatcher() = default;
  virtual void Changed() = 0;
};

// "" and the services that answer (readiness), and kLivenessService. Thread-safe.
class Health {
 public:
  // Starts NOT_SERVING, with liveness SERVING.
  explicit Health(const std::vector<std::string>& services);

  // More services; NOT_SERVING.
  void Add(const std::vector<std::string>& services);
  // Of all services but kLivenessService.
  void SetServing(bool serving);
  void SetLive(bool live);
  // Progress of the start, in printable ASCII; "" once it is complete.
  void SetLoading(std::string loading);
  // Ends every watch, for good.
  void EndWatches();

  // Nullopt: unknown service.
  std::optional<bool> IsServing(const std::string& service) const;
  bool ended() const;
  std::string loading() const;
  // Errors: RESOURCE_EXHAUSTED, there are too many.
  absl::Status Watch(const std::shared_ptr<HealthWatcher>& watcher);

 private:
  void Change(const std::function<void()>& change);

  mutable Mutex mutex_;
  std::map<std::string, bool> serving_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::weak_ptr<HealthWatcher>> watchers_ ABSL_GUARDED_BY(mutex_);
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  std::string loading_ ABSL_GUARDED_BY(mutex_);
};

using RawHealthService = grpc::health::v1::Health::WithRawCallbackMethod_Check<
    grpc::health::v1::Health::WithRawCallbackMethod_Watch<grpc::health::v1::Health::Service>>;

// The service over gRPC; no key is required. Both must outlive it.
class HealthService final : public RawHealthService {
 public:
  HealthService(Health& health, const HostContext& host);

  grpc::ServerUnaryReactor* Check(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                  grpc::ByteBuffer* response) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* Watch(grpc::CallbackServerContext* context,
                                                    const grpc::ByteBuffer* request) override;

 private:
  Health& health_;
  const HostContext host_;  // Without keys.
  ApiMethod check_;
  const ApiMethod watch_;
};

// A port with grpc.health.v1 and nothing else, in plaintext, without keys: the kubelet's probe can do neither.
class HealthPort {
 public:
  // All must outlive it. Errors: as Acceptor::Listen.
  static absl::StatusOr<std::unique_ptr<HealthPort>> Start(const std::string& address, Health& health,
                                                           const HostContext& host);
  ~HealthPort();

  int port() const { return acceptor_->port(); }

 private:
  HealthPort(Health& health, const HostContext& host) : service_(health, host) {}

  std::unique_ptr<Acceptor> acceptor_;
  std::unique_ptr<ConnectionIntake> intake_;
  HealthService service_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_HEALTH_H_
