// A gRPC server on a free loopback port, with one fake model named "fake".
#ifndef LONGEMBED_TESTS_TESTING_FAKE_SERVER_H_
#define LONGEMBED_TESTS_TESTING_FAKE_SERVER_H_

#include <grpcpp/channel.h>

#include <memory>
#include <optional>
#include <string>

#include "server/api/apis.h"
#include "server/rpc/grpc_server.h"
#include "tests/testing/fake_encoder.h"
#include "tests/testing/fake_tokenizer.h"

namespace longembed {

class FakeServer {
 public:
  struct Options {
    ServerConfig config;  // Its addresses and models are ignored.
    ServedModelOptions model;
    std::optional<ModelManifest> manifest;  // Absent: FakeManifest().
    Profiles profiles;
    std::string no_memory;                     // Passed to FakeTokenizer.
    std::shared_ptr<ApiKeyStore> api_keys;     // Null: no API key is required.
    std::optional<int64_t> max_pending_bytes;  // Bound of the ledger. Absent: 4 MiB.
  };

  explicit FakeServer(Options options = {});
  ~FakeServer();  // Opens the encoder's gate and shuts down in order.

  // Opens a channel to the server. The server must outlive all uses of the channel.
  std::shared_ptr<grpc::Channel> Connect() const { return Connect(grpc().port()); }
  static std::shared_ptr<grpc::Channel> Connect(int port);

  GrpcServer& grpc() const { return *grpc_; }
  FakeEncoder& encoder() { return *encoder_; }
  Lane& lane() { return models_.models()[0]->lane(); }
  ModelRegistry& models() { return models_; }
  Metrics& metrics() { return metrics_; }
  const Ledger& ledger() const { return ledger_; }
  Health& health() { return health_; }
  const HostContext& host() const { return *host_; }
  const Clock& clock() const { return clock_; }
  const LongembedContext& api() const { return *api_; }
  const Apis& apis() const { return *apis_; }

 private:
  RealClock clock_;
  // Declared before the scheduler, whose jobs return their admission when they are destroyed.
  Admission admission_{{}, clock_};
  Ledger ledger_;
  Scheduler scheduler_{{.workers = 1}, clock_};
  Metrics metrics_{{}};
  ModelRegistry models_;
  Options options_;
  FakeEncoder* encoder_ = nullptr;  // Owned by the model.
  Health health_{{}};
  OpenStreams streams_;
  std::unique_ptr<HostContext> host_;
  std::unique_ptr<LongembedContext> api_;
  std::unique_ptr<Apis> apis_;
  std::unique_ptr<GrpcServer> grpc_;
  // Destroyed before the server, so that the last tasks still find the calls that they answer.
  WorkerPool pool_{1, clock_};
};

}  // namespace longembed

#endif  // LONGEMBED_TESTS_TESTING_FAKE_SERVER_H_
