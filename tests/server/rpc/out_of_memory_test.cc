// Makes allocations above a size fail, wherever a request makes them. Only that request may fail, and everything that
// it held must be released.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>

#include "longembed/v1/embedding.grpc.pb.h"
#include "tests/testing/failing_new.h"
#include "tests/testing/fake_server.h"

namespace longembed {
namespace {

std::atomic<size_t> largest = SIZE_MAX;  // In bytes.
thread_local bool is_client = false;     // Allocations of the client's thread never fail.

}  // namespace

bool AllocationFails(size_t size) { return size > largest && !is_client; }

namespace {

std::string TextOf(size_t bytes) {
  std::string text;
  while (text.size() < bytes) text += "words ";
  return text;
}

class OutOfMemoryTest : public ::testing::TestWithParam<size_t> {
 protected:
  static FakeServer::Options Options() {
    FakeServer::Options options{.model = {.max_queued_tokens = 1 << 20}};
    options.config.limits.max_request_bytes = 700 << 10;
    return options;
  }
  void SetUp() override { is_client = true; }
  void ExpectNothingHeld() {
    for (int i = 0; i < 500 && server_.ledger().bytes() > 0; ++i) absl::SleepFor(absl::Milliseconds(10));
    EXPECT_EQ(server_.ledger().bytes(), 0);
    EXPECT_EQ(server_.metrics().in_flight(), 0);
  }

  FakeServer server_{Options()};
  const std::unique_ptr<v1::EmbeddingService::Stub> stub_ = v1::EmbeddingService::NewStub(server_.Connect());
};

// With a text of 400 KB, these sizes fail the message's string, the tokens, the plan, and allocations between them.
INSTANTIATE_TEST_SUITE_P(Limits, OutOfMemoryTest,
                         ::testing::Values(size_t{70} << 10, size_t{150} << 10, size_t{390} << 10));

TEST_P(OutOfMemoryTest, AUnaryCallFailsAlone) {
  const auto embed = [this](size_t bytes) {
    grpc::ClientContext context;
    v1::EmbedRequest request;
    request.mutable_options()->set_truncate(v1::EmbedOptions::END);
    request.add_inputs()->set_text(TextOf(bytes));
    v1::EmbedResponse response;
    return stub_->Embed(&context, request, &response);
  };
  EXPECT_TRUE(embed(10).ok());
  largest = GetParam();
  const grpc::Status failed = embed(400'000);
  largest = SIZE_MAX;
  EXPECT_EQ(failed.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << failed.error_message();
  ExpectNothingHeld();
  EXPECT_TRUE(embed(400'000).ok());
}

TEST_P(OutOfMemoryTest, AMessageOfAStreamLeavesNothingBehind) {
  for (int round = 0; round < 3; ++round) {
    grpc::ClientContext context;
    const auto stream = stub_->EmbedStream(&context);
    v1::EmbedStreamRequest message;
    message.set_id("0");
    message.mutable_options()->set_truncate(v1::EmbedOptions::END);
    message.mutable_input()->set_text("a");
    v1::EmbedStreamResponse answer;
    ASSERT_TRUE(stream->Write(message) && stream->Read(&answer));
    message.clear_options();
    message.set_id("large");
    message.mutable_input()->set_text(TextOf(400'000));
    largest = GetParam();
    stream->Write(message);
    const bool answered = stream->Read(&answer);
    largest = SIZE_MAX;
    if (answered) {
      EXPECT_EQ(answer.result().error().code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
    }
    stream->WritesDone();
    while (stream->Read(&answer)) continue;
    const grpc::Status status = stream->Finish();
    EXPECT_TRUE(answered ? status.ok() : status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED);
    ExpectNothingHeld();
  }
}

}  // namespace
}  // namespace longembed
