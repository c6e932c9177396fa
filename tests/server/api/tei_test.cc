// tei.v1 over a real channel.
#include <gmock/gmock.h>

#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"
#include "tei/v1/tei.grpc.pb.h"
#include "tests/server/api/service_test.h"

namespace longembed {
namespace {

using ::testing::HasSubstr;

class TeiTest : public ServiceTest {
 protected:
  using ServiceTest::ServiceTest;

  static tei::v1::EmbedRequest TeiRequest(const std::string& text) {
    tei::v1::EmbedRequest request;
    request.set_inputs(text);
    request.set_normalize(false);
    return request;
  }

  std::unique_ptr<tei::v1::Embed::Stub> tei_ = tei::v1::Embed::NewStub(channel_);
};

// TEI's clients know FAILED_PRECONDITION; whoever watches the server sees what it was.
TEST_F(TeiTest, TheServersFaultHasTeisCodeForTheClientOnly) {
  encoder_.FailWith(EncoderFailed("the device fell off the bus"));
  {
    grpc::ClientContext context;
    tei::v1::EmbedResponse response;
    EXPECT_EQ(tei_->Embed(&context, TeiRequest("a"), &response).error_code(), grpc::FAILED_PRECONDITION);
  }
  {
    grpc::ClientContext context;
    const auto stream = tei_->EmbedStream(&context);
    stream->Write(TeiRequest("a"));
    tei::v1::EmbedResponse response;
    EXPECT_FALSE(stream->Read(&response));
    EXPECT_EQ(stream->Finish().error_code(), grpc::FAILED_PRECONDITION);
  }
  for (const char* method : {"tei.Embed", "tei.EmbedStream"}) {
    EXPECT_THAT(server_.metrics().Scrape(),
                HasSubstr(absl::StrCat("longembed_requests_total{code=\"INTERNAL\",method=\"", method,
                                       "\",model=\"fake\"} 1")));
  }
}

class OldTeiStreamTest : public TeiTest {
 protected:
  OldTeiStreamTest() : TeiTest(absl::Milliseconds(200)) {}
};

TEST_F(OldTeiStreamTest, ItIsToldToGoOnAsAnotherOne) {
  grpc::ClientContext context;
  const auto stream = tei_->EmbedStream(&context);
  tei::v1::EmbedResponse response;
  int answered = 0;
  for (const absl::Time end = absl::Now() + absl::Seconds(10); absl::Now() < end; ++answered) {
    if (!stream->Write(TeiRequest("a")) || !stream->Read(&response)) break;
  }
  EXPECT_GT(answered, 0);
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("connections.max_age, which is 200ms"));
}

TEST_F(TeiTest, AnswersInOrder) {
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

TEST_F(TeiTest, ABrokenMessageEndsTheStreamAfterWhatCameBefore) {
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

TEST_F(TeiTest, ACancelledStreamLeavesNothingBehind) {
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
TEST_F(TeiTest, AStreamIsReadOnlyAsFarAsItIsAnswered) {
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
