#include "server/rpc/health.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/admission/fair_share.h"
#include "server/errors/errors.h"
#include "server/errors/within_memory.h"
#include "server/rpc/builder_plugins.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/reactors.h"
#include "server/rpc/wire.h"
#include "system/return_if_error.h"

namespace longembed {
namespace {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

// For all ports together. Balancers and clients watch health.
constexpr size_t kMaxWatches = 1024;
constexpr int64_t kMaxRequestBytes = 4 << 10;

HealthCheckResponse::ServingStatus StatusOf(std::optional<bool> serving) {
  if (!serving.has_value()) return HealthCheckResponse::SERVICE_UNKNOWN;
  return *serving ? HealthCheckResponse::SERVING : HealthCheckResponse::NOT_SERVING;
}

class HealthCheck final : public TypedOperation<HealthCheckRequest, HealthCheckResponse> {
 public:
  HealthCheck(const Health& health, const CallContext& call, const Request& request, Response& response)
      : TypedOperation(call, request, response), health_(health) {}

  void Start(Done done) override {
    done_ = std::move(done);
    const std::optional<bool> serving = health_.IsServing(request_.service());
    if (!serving.has_value()) return End(UnknownService(request_.service(), health_.services()));
    response_.set_status(StatusOf(serving));
    End(absl::OkStatus());
  }

 private:
  const Health& health_;
};

// Hosts one watch: sends changes of the state to its client, and skips changes that were superseded during a write.
class WatchHost final : public HealthWatcher, public std::enable_shared_from_this<WatchHost> {
 public:
  WatchHost(const ApiMethod& method, Arrival arrival, const HostContext& host, Health& health,
            StreamTransport& transport)
      : health_(health), transport_(transport), record_(method, std::move(arrival), host) {}

  void Begin(const grpc::ByteBuffer& request) {
    const absl::Status status = WithinMemory([&] { return Open(request); });
    status.ok() ? Changed() : EndWith(status);
  }
  void OnWritten(bool ok) {
    {
      const MutexLock lock(mutex_);
      writing_ = false;
    }
    ok ? Changed() : EndWith(CallCancelled());
  }
  void EndWith(const absl::Status& status) {
    {
      const MutexLock lock(mutex_);
      if (end_.ok()) end_ = status;
    }
    Changed();
  }

  void Changed() override {
    std::optional<HealthCheckResponse::ServingStatus> tell;
    absl::Status end;
    {
      const MutexLock lock(mutex_);
      if (writing_ || finished_) return;
      if (end_.ok() && health_.ended()) end_ = ServerDraining();
      end = end_;
      finished_ = !end.ok();
      const HealthCheckResponse::ServingStatus now = StatusOf(health_.IsServing(service_));
      if (end.ok() && told_ != now) tell = told_ = now;
      writing_ = tell.has_value();
    }
    if (!end.ok()) return transport_.Finish(record_.Finish(end));
    if (!tell.has_value()) return;
    HealthCheckResponse response;
    response.set_status(*tell);
    transport_.Write(SerializeMessage(response));
  }

 private:
  absl::Status Open(const grpc::ByteBuffer& request) {
    HealthCheckRequest message;
    RETURN_IF_ERROR(ParseMessage(request, kMaxRequestBytes, message));
    absl::StatusOr<std::unique_ptr<Charge>> call = record_.Begin();
    if (!call.ok()) return call.status();
    call_ = *std::move(call);
    service_ = message.service();
    return health_.Watch(shared_from_this(), record_.caller().name);
  }

  Health& health_;
  StreamTransport& transport_;
  CallRecord record_;
  std::unique_ptr<Charge> call_;
  std::string service_;

  Mutex mutex_;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status end_ ABSL_GUARDED_BY(mutex_);
  std::optional<HealthCheckResponse::ServingStatus> told_ ABSL_GUARDED_BY(mutex_);
};

class WatchReactor final : public grpc::ServerWriteReactor<grpc::ByteBuffer>, private StreamTransport {
 public:
  WatchReactor(const ApiMethod& method, const HostContext& host, Health& health, grpc::CallbackServerContext& context,
               const grpc::ByteBuffer& request)
      : context_(context),
        host_(std::make_shared<WatchHost>(method, ArrivalOf(context), host, health,
                                          static_cast<StreamTransport&>(*this))) {
    host_->Begin(request);
  }

  void OnWriteDone(bool ok) override { host_->OnWritten(ok); }
  void OnCancel() override { host_->EndWith(CallCancelled()); }
  void OnDone() override { delete this; }

 private:
  void Read() override {}
  void Write(grpc::ByteBuffer answer) override {
    outgoing_.Swap(&answer);
    StartWrite(&outgoing_);
  }
  void Finish(const absl::Status& status) override { ServerWriteReactor::Finish(ToGrpcEnd(context_, status)); }

  grpc::CallbackServerContext& context_;
  grpc::ByteBuffer outgoing_;
  const std::shared_ptr<WatchHost> host_;
};

HostContext ForHealth(HostContext host) {
  host.api_keys = nullptr;
  host.tracer = nullptr;  // Otherwise most traces would be those of probes.
  host.max_request_bytes = kMaxRequestBytes;
  return host;
}

}  // namespace

Health::Health(const std::vector<std::string>& services) : serving_{{"", false}, {kLivenessService, true}} {
  Add(services);
}

void Health::Add(const std::vector<std::string>& services) {
  Change([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    for (const std::string& service : services) serving_.emplace(service, false);
  });
}

void Health::Change(const std::function<void()>& change) {
  std::vector<Registered> watchers;
  {
    const MutexLock lock(mutex_);
    change();
    watchers = watchers_;
  }
  for (const Registered& registered : watchers) {
    if (const std::shared_ptr<HealthWatcher> alive = registered.watcher.lock(); alive != nullptr) alive->Changed();
  }
}

void Health::SetServing(bool serving) {
  Change([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    for (auto& [service, value] : serving_) value = service == kLivenessService ? value : serving;
  });
}

void Health::SetLive(bool live) {
  Change([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { serving_[kLivenessService] = live; });
}

void Health::SetLoading(std::string loading) {
  const MutexLock lock(mutex_);
  loading_ = std::move(loading);
}

std::string Health::loading() const {
  const MutexLock lock(mutex_);
  return loading_;
}

void Health::EndWatches() {
  Change([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { ended_ = true; });
}

std::optional<bool> Health::IsServing(const std::string& service) const {
  const MutexLock lock(mutex_);
  const auto found = serving_.find(service);
  if (found == serving_.end()) return std::nullopt;
  return found->second;
}

std::vector<std::string> Health::services() const {
  std::vector<std::string> names;
  const MutexLock lock(mutex_);
  for (const auto& [service, value] : serving_) names.push_back(absl::StrCat("\"", service, "\""));
  return names;
}

bool Health::ended() const {
  const MutexLock lock(mutex_);
  return ended_;
}

absl::Status Health::Watch(const std::shared_ptr<HealthWatcher>& watcher, const std::string& client) {
  const MutexLock lock(mutex_);
  std::erase_if(watchers_, [](const Registered& other) { return other.watcher.expired(); });
  if (watchers_.size() >= kMaxWatches) return TooManyWatches(kMaxWatches);
  const auto own = static_cast<size_t>(std::ranges::count(watchers_, client, &Registered::client));
  if (own > 0 && ExceedsFairShare(own + 1, kMaxWatches - watchers_.size() - 1))
    return TooManyWatchesOfClient(own, kMaxWatches);
  watchers_.push_back({watcher, client});
  return absl::OkStatus();
}

HealthService::HealthService(Health& health, const HostContext& host)
    : health_(health),
      host_(ForHealth(host)),
      check_(MakeMethod<HealthCheck>("health.Check", health_)),
      watch_{.name = "health.Watch"} {
  check_.exempt = true;
}

grpc::ServerUnaryReactor* HealthService::Check(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                               grpc::ByteBuffer* response) {
  if (const std::string loading = health_.loading(); !loading.empty()) {
    context->AddInitialMetadata(kLoadingMetadata, loading);
  }
  return ServeUnary(check_, host_, context, request, response);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* HealthService::Watch(grpc::CallbackServerContext* context,
                                                                 const grpc::ByteBuffer* request) {
  return new WatchReactor(watch_, host_, health_, *context, *request);  // Deletes itself in OnDone.
}

absl::StatusOr<std::unique_ptr<HealthPort>> HealthPort::Start(const std::string& address, Health& health,
                                                              const HostContext& host) {
  // For kubelets, balancers and operators. The limit is small, because any client can open connections.
  constexpr int kMaxConnections = 128, kMaxStreams = 16;
  absl::StatusOr<std::unique_ptr<Acceptor>> acceptor = Acceptor::Listen(address, {.max_connections = kMaxConnections});
  if (!acceptor.ok()) return acceptor.status();
  std::unique_ptr<HealthPort> port(new HealthPort(health, host));
  port->acceptor_ = *std::move(acceptor);
  grpc::ServerBuilder builder;
  SelectPlugins(builder, {});
  RefuseCompression(builder);
  builder.SetMaxReceiveMessageSize(kMaxRequestBytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreams);
  SetKeepalive(builder, absl::Minutes(1));
  TakeOverLogs();
  // Each probe of the kubelet opens a connection for one call.
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, 60'000);
  port->intake_ = std::make_unique<ConnectionIntake>(builder, grpc::InsecureServerCredentials());
  builder.RegisterService(&port->service_);
  builder.RegisterCallbackGenericService(&port->unknown_methods_);
  port->server_ = builder.BuildAndStart();
  if (port->server_ == nullptr) return absl::InternalError("the health port's server cannot be built");
  port->acceptor_->Start({.accept = [intake = port->intake_.get()](int descriptor) { intake->Take(descriptor); }});
  return port;
}

HealthPort::~HealthPort() {
  acceptor_->Stop();
  if (server_ == nullptr) return;
  server_->Shutdown(std::chrono::system_clock::now());
  server_->Wait();
}

}  // namespace longembed
