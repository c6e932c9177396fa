// EmbedStream of tei.v1 over a real channel.
#include <gmock/gmock.h>

#include "tei/v1/tei.grpc.pb.h"
#include "tests/server/rpc/service_test.h"

namespace longembed {
namespace {

class TeiStreamTest : public ServiceTest {
 protected:
  static tei::v1::EmbedRequest TeiRequest(const std::string& text) {
    tei::v1::EmbedRequest request;
    request.set_inputs(text);
    request.set_normalize(false);
    return request;
  }

  std::unique_ptr<tei::v1::Embed::Stub> tei_ = tei::v1::Embed::NewStub(channel_);
};

TEST_F(TeiStreamTest, AnswersInOrder) {
  grpc::ClientContext context;
  const auto stream = tei_->EmbedStream(&context);
  tei::v1::EmbedResponse response;
  for (int first = 0; first < 200; first += 20) {  // The queue takes no more than 100 tokens, 3 for each message.
    for (int i = first; i < first + 20; ++i)
      stream->Write(TeiRequest(std::string(static_cast<size_t>(1 + i % 9), 'a')));
    for (int i = first; i < first + 20; ++i) {
      ASSERT_TRUE(stream->Read(&response)) << i;
      ASSERT_EQ(response.embeddings(0), static_cast<float>(1 + 10 + 1 + i % 9 + 2)) << i;  // Sum of the three tokens.
    }
  }
  stream->WritesDone();
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(TeiStreamTest, ABrokenMessageEndsTheStreamAfterWhatCameBefore) {
  grpc::ClientContext context;
  const auto stream = tei_->EmbedStream(&context);
  stream->Write(TeiRequest("a"));
  stream->Write(TeiRequest(""));
  for (int i = 0; i < 20; ++i) stream->Write(TeiRequest("never answered"));
  tei::v1::EmbedResponse response;
  EXPECT_TRUE(stream->Read(&response));
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(stream->Finish().error_code(), grpc::INVALID_ARGUMENT);
}

TEST_F(TeiStreamTest, ACancelledStreamLeavesNothingBehind) {
  encoder_.CloseGate();
  for (int round = 0; round < 5; ++round) {
    grpc::ClientContext context;
    const auto stream = tei_->EmbedStream(&context);
    for (int i = 0; i < 10; ++i) stream->Write(TeiRequest("a b c"));
    context.TryCancel();
    EXPECT_EQ(stream->Finish().error_code(), grpc::CANCELLED);
  }
  encoder_.OpenGate();
  EXPECT_TRUE(server_.lane().WaitIdle(absl::Seconds(10)));
}

// Nobody reads the answers and no batch ends: the server takes some messages and leaves the rest to the client's side.
TEST_F(TeiStreamTest, AStreamIsReadOnlyAsFarAsItIsAnswered) {
  encoder_.CloseGate();
  grpc::ClientContext context;
  const auto stream = tei_->EmbedStream(&context);
  for (int i = 0; i < 90; ++i) stream->Write(TeiRequest("a"));  // 3 tokens each; the queue would take no more than 100.
  encoder_.AwaitCalls(1);
  absl::SleepFor(absl::Milliseconds(50));
  EXPECT_LE(server_.lane().queue_state().jobs, 64u);
  context.TryCancel();
  encoder_.OpenGate();
  stream->Finish();
}
}  // namespace
}  // namespace longembed
