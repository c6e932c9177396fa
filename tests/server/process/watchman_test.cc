// What both ports say of health while an encoder fails and recovers.
#include "server/process/watchman.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "longembed/v1/embedding.grpc.pb.h"
#include "model/errors/errors.h"
#include "tests/testing/fake_encoder.h"
#include "tests/testing/fake_tokenizer.h"

namespace longembed {
namespace {

using grpc::health::v1::HealthCheckResponse;

class WatchmanTest : public ::testing::Test {
 protected:
  WatchmanTest() {
    auto encoder = std::make_unique<FakeEncoder>();
    encoder_ = encoder.get();
    EXPECT_TRUE(models_
                    .Add(std::make_unique<ServedModel>(
                        "fake", std::make_unique<const Model>(Model{FakeManifest(), std::make_unique<FakeTokenizer>()}),
                        std::move(encoder), Device{scheduler_, admission_}, ServedModelOptions{}, metrics_))
                    .ok());
    config_.listen = "127.0.0.1:0";
    server_ = *GrpcServer::Start(config_, {.models = models_,
                                           .pool = pool_,
                                           .clock = clock_,
                                           .metrics = metrics_,
                                           .limits = config_.limits,
                                           .profiles = profiles_,
                                           .pending = pending_});
    port_ = *HealthPort::Start("127.0.0.1:0");
  }

  ~WatchmanTest() override { server_->Shutdown(absl::Seconds(5)); }

  static std::shared_ptr<grpc::Channel> Connect(int port) {
    return grpc::CreateChannel(absl::StrCat("127.0.0.1:", port), grpc::InsecureChannelCredentials());
  }

  // So many calls, each a batch of its own.
  void Embed(int calls, grpc::StatusCode expected) {
    const auto stub = v1::EmbeddingService::NewStub(Connect(server_->port()));
    v1::EmbedRequest request;
    request.add_inputs()->set_text("a");
    for (int i = 0; i < calls; ++i) {
      grpc::ClientContext context;
      v1::EmbedResponse response;
      EXPECT_EQ(stub->Embed(&context, request, &response).error_code(), expected);
    }
  }

  // On both ports, of the whole server and of its service.
  void ExpectServing(bool expected) {
    for (const char* service : {"", "longembed.v1.EmbeddingService"}) ExpectHealth(service, expected);
  }
  void ExpectLive(bool expected) { ExpectHealth(kLivenessService, expected); }

  void ExpectHealth(const std::string& service, bool expected) {
    for (const int port : {server_->port(), port_->port()}) {
      const auto stub = grpc::health::v1::Health::NewStub(Connect(port));
      grpc::ClientContext context;
      grpc::health::v1::HealthCheckRequest request;
      request.set_service(service);
      HealthCheckResponse response;
      const grpc::Status status = stub->Check(&context, request, &response);
      ASSERT_TRUE(status.ok()) << status.error_message();
      EXPECT_EQ(response.status(), expected ? HealthCheckResponse::SERVING : HealthCheckResponse::NOT_SERVING)
          << "\"" << service << "\" on the " << (port == port_->port() ? "health" : "main") << " port";
    }
  }

  RealClock clock_;
  Admission admission_{{}, clock_};
  PendingCalls pending_{1 << 20};
  Scheduler scheduler_{{.workers = 1}, clock_};
  Metrics metrics_{{}};
  ModelRegistry models_;
  ServerConfig config_;
  const Profiles profiles_;
  FakeEncoder* encoder_ = nullptr;
  std::unique_ptr<GrpcServer> server_;
  WorkerPool pool_{1};
  std::unique_ptr<HealthPort> port_;
};

TEST_F(WatchmanTest, ServesOnlyWhenItIsSaid) {
  Watchman watchman(*server_, port_.get(), models_, metrics_);
  ExpectServing(false);
  ExpectLive(true);
  watchman.SetServing(true);
  ExpectServing(true);
  watchman.LookAtModels();
  ExpectServing(true);
  watchman.SetServing(false);
  ExpectServing(false);
  ExpectLive(true);
}

TEST_F(WatchmanTest, AnEncoderThatKeepsFailingIsTakenOutOfServiceUntilAProbeSucceeds) {
  Watchman watchman(*server_, port_.get(), models_, metrics_);
  watchman.SetServing(true);
  encoder_->FailWith(EncoderFailed("the device fell off the bus"));
  Embed(3, grpc::StatusCode::INTERNAL);
  watchman.LookAtModels();
  ExpectServing(false);
  ExpectLive(true);
  watchman.LookAtModels();
  ExpectServing(false);
  encoder_->FailWith(absl::OkStatus());
  watchman.LookAtModels();
  ExpectServing(true);
  Embed(1, grpc::StatusCode::OK);
}

TEST_F(WatchmanTest, OneThatFailsForTooLongEndsTheServersLiveness) {
  Watchman watchman(*server_, port_.get(), models_, metrics_, absl::ZeroDuration());
  watchman.SetServing(true);
  encoder_->FailWith(EncoderFailed("the device fell off the bus"));
  Embed(3, grpc::StatusCode::INTERNAL);
  watchman.LookAtModels();
  ExpectServing(false);
  ExpectLive(false);
  encoder_->FailWith(absl::OkStatus());
  watchman.LookAtModels();
  ExpectServing(true);
  ExpectLive(true);
}

TEST_F(WatchmanTest, FailuresThatDoNotFollowEachOtherAreTheirCallsOwn) {
  Watchman watchman(*server_, port_.get(), models_, metrics_);
  watchman.SetServing(true);
  for (int i = 0; i < 3; ++i) {
    encoder_->FailWith(EncoderFailed("once"));
    Embed(2, grpc::StatusCode::INTERNAL);
    encoder_->FailWith(absl::OkStatus());
    Embed(1, grpc::StatusCode::OK);
  }
  encoder_->FailWith(EncoderFailed("once"));
  watchman.LookAtModels();
  ExpectServing(true);
}

TEST_F(WatchmanTest, WantOfMemoryIsNoFailureOfTheEncoder) {
  Watchman watchman(*server_, port_.get(), models_, metrics_);
  watchman.SetServing(true);
  encoder_->FailWith(EncoderOutOfMemory("not enough memory"));
  Embed(5, grpc::StatusCode::RESOURCE_EXHAUSTED);
  watchman.LookAtModels();
  ExpectServing(true);
}

}  // namespace
}  // namespace longembed
