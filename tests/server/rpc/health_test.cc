// Tests grpc.health.v1 over real channels: what it reports, how many watches it allows, and what they hold.
#include "server/rpc/health.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <vector>

#include "tests/testing/fake_server.h"

namespace longembed {
namespace {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;
using ::testing::HasSubstr;

class HealthTest : public ::testing::Test {
 protected:
  using Reader = grpc::ClientReader<HealthCheckResponse>;

  struct Watch {
    grpc::ClientContext context;
    std::unique_ptr<Reader> reader;
  };

  std::unique_ptr<Watch> Open(const std::string& service) {
    auto watch = std::make_unique<Watch>();
    HealthCheckRequest request;
    request.set_service(service);
    watch->reader = stub_->Watch(&watch->context, request);
    return watch;
  }
  static HealthCheckResponse::ServingStatus Next(Watch& watch) {
    HealthCheckResponse response;
    EXPECT_TRUE(watch.reader->Read(&response));
    return response.status();
  }

  FakeServer server_;
  const std::unique_ptr<HealthPort> port_ = *HealthPort::Start("127.0.0.1:0", server_.health(), server_.host());
  const std::unique_ptr<grpc::health::v1::Health::Stub> stub_ =
      grpc::health::v1::Health::NewStub(FakeServer::Connect(port_->port()));
};

TEST_F(HealthTest, AWatchReportsChanges) {
  const auto watch = Open("longembed.v1.EmbeddingService");
  EXPECT_EQ(Next(*watch), HealthCheckResponse::NOT_SERVING);
  server_.health().SetServing(true);
  EXPECT_EQ(Next(*watch), HealthCheckResponse::SERVING);
  server_.health().SetLive(false);  // This changes another service.
  server_.health().SetServing(false);
  EXPECT_EQ(Next(*watch), HealthCheckResponse::NOT_SERVING);
}

TEST_F(HealthTest, AServiceThatIsNotThereIsUnknown) {
  const auto watch = Open("nobody");
  EXPECT_EQ(Next(*watch), HealthCheckResponse::SERVICE_UNKNOWN);
  grpc::ClientContext context;
  HealthCheckRequest request;
  request.set_service("nobody");
  HealthCheckResponse response;
  const grpc::Status status = stub_->Check(&context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(status.error_message(), HasSubstr("service: is \"nobody\"; this server has: \"\", "));
  EXPECT_THAT(status.error_message(), HasSubstr("\"longembed.v1.EmbeddingService\""));
}

TEST_F(HealthTest, AWatchIsOnTheLedgerAndInTheMetrics) {
  EXPECT_EQ(server_.ledger().bytes(), 0);
  auto watch = Open("");
  Next(*watch);
  EXPECT_EQ(server_.ledger().held().at("calls"), Ledger::kCallBytes);
  EXPECT_THAT(server_.metrics().Scrape(), HasSubstr("longembed_requests_in_flight{method=\"health.Watch\"} 1"));
  watch->context.TryCancel();
  watch->reader->Finish();
  for (int i = 0; i < 500 && server_.ledger().bytes() > 0; ++i) absl::SleepFor(absl::Milliseconds(10));
  EXPECT_EQ(server_.ledger().bytes(), 0);
  EXPECT_THAT(server_.metrics().Scrape(), HasSubstr("longembed_requests_in_flight{method=\"health.Watch\"} 0"));
}

// The fake server's ledger has room for fewer than 200 watches.
TEST_F(HealthTest, WatchesFindRoomOnlyAsCallsDo) {
  std::vector<std::unique_ptr<Watch>> watches;
  std::vector<std::unique_ptr<grpc::health::v1::Health::Stub>> stubs;  // Each connection allows few streams.
  grpc::StatusCode code = grpc::StatusCode::OK;
  for (int i = 0; i < 400 && code == grpc::StatusCode::OK; ++i) {
    if (i % 8 == 0) {
      grpc::ChannelArguments own;
      own.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
      stubs.push_back(grpc::health::v1::Health::NewStub(grpc::CreateCustomChannel(
          "127.0.0.1:" + std::to_string(port_->port()), grpc::InsecureChannelCredentials(), own)));
    }
    auto watch = std::make_unique<Watch>();
    watch->reader = stubs.back()->Watch(&watch->context, HealthCheckRequest());
    HealthCheckResponse response;
    if (!watch->reader->Read(&response)) code = watch->reader->Finish().error_code();
    watches.push_back(std::move(watch));
  }
  EXPECT_EQ(code, grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_GT(watches.size(), 50u);
  for (const auto& watch : watches) watch->context.TryCancel();
}

TEST_F(HealthTest, AFullLedgerStillAnswersChecks) {
  server_.health().SetServing(true);
  const auto all = server_.host().ledger.BeginMessage("someone");
  ASSERT_TRUE(all->Hold(Memory::kRequests, int64_t{1} << 30).ok());
  grpc::ClientContext context, watch_context;
  HealthCheckResponse response;
  const grpc::Status checked = stub_->Check(&context, HealthCheckRequest(), &response);
  EXPECT_TRUE(checked.ok()) << checked.error_message();
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVING);
  EXPECT_EQ(stub_->Watch(&watch_context, HealthCheckRequest())->Finish().error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
}

// Tests the limit on a port without keys. One client must leave room to others.
TEST(HealthWatchesTest, AreBounded) {
  class Watcher final : public HealthWatcher {
    void Changed() override {}
  };
  Health health({});
  std::vector<std::shared_ptr<HealthWatcher>> watchers;
  absl::Status status;
  const auto fill = [&](const auto& client_of) {
    for (status = absl::OkStatus(); status.ok() && watchers.size() < 5000;) {
      const std::string client = client_of(watchers.size());
      status = health.Watch(watchers.emplace_back(std::make_shared<Watcher>()), client);
    }
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << watchers.size();
  };
  fill([](size_t) { return "greedy"; });
  EXPECT_THAT(std::string(status.message()), HasSubstr("Health.Watch calls open, which is its share"));
  EXPECT_TRUE(health.Watch(std::make_shared<Watcher>(), "modest").ok());
  fill([](size_t number) { return std::to_string(number); });
  EXPECT_THAT(std::string(status.message()), HasSubstr("1024 Health.Watch calls are open"));
  watchers.clear();
  EXPECT_TRUE(health.Watch(std::make_shared<Watcher>(), "greedy").ok());
}

TEST_F(HealthTest, ADrainEndsWatches) {
  const auto watch = Open("");
  Next(*watch);
  server_.grpc().Shutdown(absl::Seconds(5));
  HealthCheckResponse response;
  EXPECT_FALSE(watch->reader->Read(&response));
  EXPECT_EQ(watch->reader->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

}  // namespace
}  // namespace longembed
