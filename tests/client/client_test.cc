#include "client/client.h"

#include <gtest/gtest.h>

#include "absl/time/clock.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "tests/testing/scripted_service.h"

namespace longembed::client {
namespace {

class ClientTest : public ::testing::Test {
 protected:
  absl::StatusOr<v1::EmbedResponse> Embed(const CallOptions& options = {}) {
    v1::EmbedRequest request;
    request.add_inputs()->set_text("four");
    Client client({.server = service_.address(),
                   .api_key = "secret",
                   .retry = {.max_attempts = 3, .first_delay = absl::Milliseconds(1)}});
    return client.Embed(request, options);
  }

  ScriptedService service_;
};

TEST_F(ClientTest, TriesAgainWhenUnavailable) {
  service_.FailNext({{grpc::UNAVAILABLE, "draining"}, ""});
  service_.FailNext({{grpc::UNAVAILABLE, "draining"}, ""});
  const auto response = Embed();
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->results(0).embeddings(0).values(0), 4);
  EXPECT_EQ(service_.calls(), 3);
  EXPECT_EQ(service_.authorization(), "Bearer secret");
}

TEST_F(ClientTest, GivesUpAfterTheLastAttempt) {
  for (int i = 0; i < 5; ++i) service_.FailNext({{grpc::UNAVAILABLE, "draining"}, ""});
  EXPECT_EQ(Embed().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(service_.calls(), 3);
}

TEST_F(ClientTest, ObeysPushback) {
  service_.FailNext({{grpc::RESOURCE_EXHAUSTED, "overloaded"}, "120"});
  const absl::Time started = absl::Now();
  EXPECT_TRUE(Embed().ok());
  EXPECT_GE(absl::Now() - started, absl::Milliseconds(120));
  service_.FailNext({{grpc::UNAVAILABLE, "go away"}, "-1"});
  EXPECT_EQ(Embed().status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(ClientTest, ReadsRetryInfo) {
  google::rpc::Status details;
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_nanos(1000000);
  details.add_details()->PackFrom(retry);
  service_.FailNext({{grpc::RESOURCE_EXHAUSTED, "overloaded", details.SerializeAsString()}, ""});
  EXPECT_TRUE(Embed().ok());
  EXPECT_EQ(service_.calls(), 2);
}

TEST_F(ClientTest, DoesNotWaitBeyondTheTimeout) {
  service_.FailNext({{grpc::RESOURCE_EXHAUSTED, "overloaded"}, "60000"});
  const absl::Time started = absl::Now();
  EXPECT_EQ(Embed({.timeout = absl::Seconds(5)}).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_LT(absl::Now() - started, absl::Seconds(4));
}

TEST_F(ClientTest, NamesTheFieldAtFault) {
  google::rpc::Status details;
  google::rpc::BadRequest bad_request;
  auto* violation = bad_request.add_field_violations();
  violation->set_field("options.dimensions");
  violation->set_description("is 0");
  details.add_details()->PackFrom(bad_request);
  service_.FailNext({{grpc::INVALID_ARGUMENT, "wrong", details.SerializeAsString()}, ""});
  const absl::Status status = Embed().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "wrong (options.dimensions: is 0)");
  EXPECT_EQ(service_.calls(), 1);
}

}  // namespace
}  // namespace longembed::client
