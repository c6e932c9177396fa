// Tests the progress of loading a model: on the metrics port, on the health port, and in the log.
#include "server/process/load_progress.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "grpc/health/v1/health.grpc.pb.h"
#include "server/telemetry/log.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fake_server.h"

namespace longembed {
namespace {

using ::testing::HasSubstr;

class LoadProgressTest : public ::testing::Test {
 protected:
  // Returns the metadata of a health check, or "" if there is none.
  std::string LoadingMetadata() {
    const auto stub = grpc::health::v1::Health::NewStub(FakeServer::Connect(port_->port()));
    grpc::ClientContext context;
    grpc::health::v1::HealthCheckResponse response;
    EXPECT_TRUE(stub->Check(&context, grpc::health::v1::HealthCheckRequest(), &response).ok());
    const auto found = context.GetServerInitialMetadata().find(kLoadingMetadata);
    return found == context.GetServerInitialMetadata().end() ? ""
                                                             : std::string(found->second.data(), found->second.size());
  }
  std::string Ratio() {
    const std::string text = server_.host().metrics.Scrape();
    const std::string name = "longembed_model_load_ratio{model=\"m\"} ";
    const size_t found = text.find(name);
    return found == std::string::npos ? ""
                                      : text.substr(found + name.size(), text.find('\n', found) - found - name.size());
  }

  FakeServer server_;
  FakeClock clock_;
  const std::unique_ptr<HealthPort> port_ = *HealthPort::Start("127.0.0.1:0", server_.health(), server_.host());
  LoadProgress progress_{"m", server_.host().metrics, server_.health(), clock_};
};

TEST_F(LoadProgressTest, IsReportedToProbesAndMetrics) {
  EXPECT_EQ(LoadingMetadata(), "");
  const auto verified = progress_.Begin(LoadStage::kVerifyingFiles);
  EXPECT_EQ(LoadingMetadata(), "0%, verifying files");
  verified(0.5);
  EXPECT_EQ(LoadingMetadata(), "15%, verifying files");
  EXPECT_EQ(Ratio(), "0.15");
  progress_.Begin(LoadStage::kPackingWeights)(0.5);
  EXPECT_EQ(LoadingMetadata(), "75%, packing weights");
  progress_.Begin(LoadStage::kReady);
  EXPECT_EQ(LoadingMetadata(), "");
  EXPECT_EQ(Ratio(), "1");
}

// Measuring may take minutes, during which the percentage stays as it is.
TEST_F(LoadProgressTest, AStageIsReportedWhereTheOneBeforeEnds) {
  progress_.Begin(LoadStage::kPackingWeights)(1.0);
  EXPECT_EQ(LoadingMetadata(), "90%, packing weights");
  progress_.Begin(LoadStage::kMeasuringPrecision);
  EXPECT_EQ(LoadingMetadata(), "90%, measuring the precision");
}

TEST_F(LoadProgressTest, TheLogHasALineEveryFewSeconds) {
  ::testing::internal::CaptureStderr();
  const auto packed = progress_.Begin(LoadStage::kPackingWeights);
  packed(0.2);  // A quick start logs nothing.
  clock_.Advance(absl::Seconds(6));
  packed(0.5);
  packed(0.6);
  EXPECT_TRUE(FlushLog(absl::Seconds(20)));
  const std::string log = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(log,
              HasSubstr("\"event\":\"loading a model\",\"model\":\"m\",\"stage\":\"packing weights\",\"percent\":75"));
  EXPECT_EQ(log.find("78"), std::string::npos);
}

}  // namespace
}  // namespace longembed
