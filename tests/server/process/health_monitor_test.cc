// Tests the health of both ports while an encoder fails and recovers.
#include "server/process/health_monitor.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <thread>

#include "grpc/health/v1/health.grpc.pb.h"
#include "longembed/v1/embedding.grpc.pb.h"
#include "model/errors/errors.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fake_server.h"

namespace longembed {
namespace {

using grpc::health::v1::HealthCheckResponse;

class HealthMonitorTest : public ::testing::Test {
 protected:
  // Makes `calls` calls. Each is a batch of its own.
  void Embed(int calls, grpc::StatusCode expected) {
    const auto stub = v1::EmbeddingService::NewStub(server_.Connect());
    v1::EmbedRequest request;
    request.add_inputs()->set_text("a");
    for (int i = 0; i < calls; ++i) {
      grpc::ClientContext context;
      context.set_deadline(std::chrono::system_clock::now() + std::chrono::minutes(1));
      v1::EmbedResponse response;
      EXPECT_EQ(stub->Embed(&context, request, &response).error_code(), expected);
    }
  }

  // Checks the health of the whole server and of its service, on both ports.
  void ExpectServing(bool expected) {
    for (const char* service : {"", "longembed.v1.EmbeddingService"}) ExpectHealth(service, expected);
  }
  void ExpectLive(bool expected) { ExpectHealth(kLivenessService, expected); }

  void ExpectHealth(const std::string& service, bool expected) {
    for (const int port : {server_.grpc().port(), port_->port()}) {
      const auto stub = grpc::health::v1::Health::NewStub(FakeServer::Connect(port));
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

  // Checks the models until health is as expected. A check sees the result of the probe that the check before it
  // started. It ignores batches that hang if this process was starved of CPU time since the check before it.
  void CheckUntilServing(bool expected, HealthMonitor& monitor) {
    for (int i = 0; i < 500 && server_.health().IsServing("") != expected; ++i) {
      absl::SleepFor(absl::Milliseconds(20));
      monitor.Check();
    }
    ExpectServing(expected);
  }

  FakeServer server_;
  FakeEncoder& encoder_ = server_.encoder();
  const std::unique_ptr<HealthPort> port_ = *HealthPort::Start("127.0.0.1:0", server_.health(), server_.host());
  FakeClock pool_clock_;
  WorkerPool pool_{1, pool_clock_};
  HealthMonitor monitor_{server_.health(), server_.models(), pool_, server_.metrics(), server_.clock()};
};

TEST_F(HealthMonitorTest, ServesOnlyAfterSetServing) {
  ExpectServing(false);
  ExpectLive(true);
  monitor_.SetServing(true);
  ExpectServing(true);
  monitor_.Check();
  ExpectServing(true);
  monitor_.SetServing(false);
  ExpectServing(false);
  ExpectLive(true);
}

TEST_F(HealthMonitorTest, AnEncoderThatKeepsFailingIsTakenOutOfServiceUntilAProbeSucceeds) {
  monitor_.SetServing(true);
  encoder_.FailWith(EncoderFailed("the device fell off the bus"));
  Embed(3, grpc::StatusCode::INTERNAL);
  monitor_.Check();
  ExpectServing(false);
  ExpectLive(true);
  monitor_.Check();
  ExpectServing(false);
  encoder_.FailWith(absl::OkStatus());
  CheckUntilServing(true, monitor_);
  Embed(1, grpc::StatusCode::OK);
}

TEST_F(HealthMonitorTest, AHangingEncoderIsOutOfServiceUntilItContinues) {
  HealthMonitor monitor(server_.health(), server_.models(), pool_, server_.metrics(), server_.clock(),
                        absl::Milliseconds(100));
  monitor.SetServing(true);
  encoder_.CloseGate();
  encoder_.IgnoreCancellation();
  std::jthread caught([this] { Embed(1, grpc::StatusCode::UNAVAILABLE); });
  encoder_.AwaitCalls(1);
  std::jthread waits([this] { Embed(1, grpc::StatusCode::UNAVAILABLE); });
  monitor.Check();
  ExpectServing(true);  // A batch may take a moment.
  while (server_.models().models()[0]->hanging() < absl::Milliseconds(200)) absl::SleepFor(absl::Milliseconds(20));
  CheckUntilServing(false, monitor);
  ExpectLive(false);
  Embed(1, grpc::StatusCode::UNAVAILABLE);  // New calls need not wait, either.
  encoder_.OpenGate();
  CheckUntilServing(true, monitor);
  ExpectLive(true);
  Embed(1, grpc::StatusCode::OK);
}

TEST_F(HealthMonitorTest, AHangingTokenizerIsOutOfServiceUntilItContinues) {
  HealthMonitor monitor(server_.health(), server_.models(), pool_, server_.metrics(), server_.clock(),
                        absl::Minutes(10));
  monitor.SetServing(true);
  std::promise<void> begun, end;
  pool_.Run([&] {
    begun.set_value();
    end.get_future().wait();
  });
  begun.get_future().wait();
  monitor.Check();
  ExpectServing(true);
  pool_clock_.Advance(absl::Minutes(1));
  CheckUntilServing(false, monitor);
  ExpectLive(true);
  pool_clock_.Advance(absl::Minutes(10));
  monitor.Check();
  ExpectLive(false);
  end.set_value();
  CheckUntilServing(true, monitor);
  ExpectLive(true);
}

// After SIGSTOP and SIGCONT, a batch may look as if it were hanging. It must get time to end.
TEST_F(HealthMonitorTest, ASuspendedProcessIsNotHanging) {
  HealthMonitor monitor(server_.health(), server_.models(), pool_, server_.metrics(), server_.clock());
  monitor.SetServing(true);
  encoder_.CloseGate();
  std::jthread caught([this] { Embed(1, grpc::StatusCode::OK); });
  encoder_.AwaitCalls(1);
  while (server_.models().models()[0]->hanging() < absl::Milliseconds(100)) absl::SleepFor(absl::Milliseconds(20));
  monitor.Check();  // More than three seconds have passed since the last check.
  ExpectServing(true);
  encoder_.OpenGate();
}

TEST_F(HealthMonitorTest, AModelThatFailsForTooLongEndsLiveness) {
  HealthMonitor monitor(server_.health(), server_.models(), pool_, server_.metrics(), server_.clock(),
                        absl::ZeroDuration());
  monitor.SetServing(true);
  encoder_.FailWith(EncoderFailed("the device fell off the bus"));
  Embed(3, grpc::StatusCode::INTERNAL);
  monitor.Check();
  ExpectServing(false);
  ExpectLive(false);
  encoder_.FailWith(absl::OkStatus());
  CheckUntilServing(true, monitor);
  ExpectLive(true);
}

TEST_F(HealthMonitorTest, FailuresWithSuccessesBetweenThemDoNotEndService) {
  monitor_.SetServing(true);
  for (int i = 0; i < 3; ++i) {
    encoder_.FailWith(EncoderFailed("once"));
    Embed(2, grpc::StatusCode::INTERNAL);
    encoder_.FailWith(absl::OkStatus());
    Embed(1, grpc::StatusCode::OK);
  }
  encoder_.FailWith(EncoderFailed("once"));
  monitor_.Check();
  ExpectServing(true);
}

TEST_F(HealthMonitorTest, OutOfMemoryIsNotAnEncoderFailure) {
  monitor_.SetServing(true);
  encoder_.FailWith(EncoderOutOfMemory("not enough memory"));
  Embed(5, grpc::StatusCode::RESOURCE_EXHAUSTED);
  monitor_.Check();
  ExpectServing(true);
}

}  // namespace
}  // namespace longembed
