// A gRPC server on a free port of the loopback, with one fake model behind it, called "fake".
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
    ServerConfig config;  // Its addresses and models are not looked at.
    ServedModelOptions model;
    std::optional<ModelManifest> manifest;  // FakeManifest() where absent.
    Profiles profiles;
    std::string no_memory;                  // FakeTokenizer's.
    std::shared_ptr<ApiKeyStore> api_keys;  // Null: no key is asked for.
  };

  explicit FakeServer(Options options = {});
  ~FakeServer();  // Opens the encoder's gate and ends in order.

  // The server must outlive all uses of the channel.
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
  Admission admission_{{}, clock_};  // Before the scheduler, whose jobs give back what they hold of it.
  Ledger ledger_{4 << 20};
  Scheduler scheduler_{{.workers = 1}, clock_};
  Metrics metrics_{{}};
  ModelRegistry models_;
  Options options_;
  FakeEncoder* encoder_ = nullptr;  // The model's.
  Health health_{{}};
  OpenStreams streams_;
  std::unique_ptr<HostContext> host_;
  std::unique_ptr<LongembedContext> api_;
  std::unique_ptr<Apis> apis_;
  std::unique_ptr<GrpcServer> grpc_;
  WorkerPool pool_{1, clock_};  // After the server: its last tasks still find what they answer to.
};

}  // namespace longembed

#endif  // LONGEMBED_TESTS_TESTING_FAKE_SERVER_H_
