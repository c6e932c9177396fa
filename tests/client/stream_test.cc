#include "client/stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <stop_token>
#include <string>
#include <thread>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "tests/testing/scripted_service.h"

namespace longembed::client {
namespace {

using ::testing::_;
using ::testing::Each;
using ::testing::Pair;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

v1::Input Text(size_t bytes) {
  v1::Input input;
  input.set_text(std::string(bytes, 'x'));
  return input;
}

grpc::Status Overload(int delay_ms) {
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(delay_ms / 1000);
  retry.mutable_retry_delay()->set_nanos(delay_ms % 1000 * 1'000'000);
  google::rpc::Status status;
  status.add_details()->PackFrom(retry);
  return {grpc::RESOURCE_EXHAUSTED, "overloaded", status.SerializeAsString()};
}

// Exceeds what flow control lets a client send to a server that does not read.
v1::Input LongText() { return Text(64 << 20); }

class StreamTest : public ::testing::Test {
 protected:
  // Returns a callback that counts the answers to each input.
  EmbedStream::OnAnswer Count() {
    return [this](uint64_t number, const v1::EmbedStreamResponse& answer) {
      ++answers_[number];
      failed_ += answer.result().has_error() ? 1 : 0;
      last_error_ = answer.result().error().code();
      return absl::OkStatus();
    };
  }

  // Embeds `inputs` inputs. Returns the status that ended the stream.
  absl::Status Embed(int inputs, const StreamOptions& options) {
    EmbedStream stream(client_, {}, options, Count());
    for (int i = 0; i < inputs; ++i) {
      if (!stream.Write(Text(i + 1)).ok()) break;
    }
    return stream.Finish();
  }

  ScriptedService service_;
  Client client_{{.server = service_.address()}};
  std::map<uint64_t, int> answers_;
  int failed_ = 0;
  int last_error_ = 0;
};

TEST_F(StreamTest, TheTimeoutHoldsWhereTheServerDoesNotRead) {
  service_.StopReading();
  EmbedStream stream(client_, {}, {.max_in_flight = 1, .timeout = absl::Milliseconds(500)}, Count());
  EXPECT_TRUE(stream.Write(LongText()).ok());
  EXPECT_EQ(stream.Write(Text(1)).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(stream.Finish().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(StreamTest, CanBeAbandonedWhereTheServerDoesNotRead) {
  service_.StopReading();
  const absl::Time started = absl::Now();
  {
    EmbedStream stream(client_, {}, {.timeout = absl::InfiniteDuration()}, Count());
    EXPECT_TRUE(stream.Write(LongText()).ok());
    while (service_.calls() == 0) absl::SleepFor(absl::Milliseconds(10));
    absl::SleepFor(absl::Milliseconds(300));  // By now the server has stopped reading its messages.
  }
  EXPECT_LT(absl::Now() - started, absl::Minutes(1));
}

TEST_F(StreamTest, OpensAnotherStreamAfterMaxAge) {
  service_.EndStreamsAfter(3, {grpc::StatusCode::UNAVAILABLE, "a stream may last for 10m", "details"});
  const absl::Status status = Embed(60, {.max_in_flight = 8});
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_THAT(answers_, SizeIs(60));
  EXPECT_THAT(answers_, Each(Pair(_, 1)));
  EXPECT_EQ(service_.calls(), 20);  // This is more than the attempts of a RetryPolicy, but every stream made progress.
}

TEST_F(StreamTest, OpensAnotherStreamAfterMaxAgeWithoutAnAnswer) {
  service_.EndStreamsAfter(1, {grpc::StatusCode::UNAVAILABLE, "a stream may last for 10m", "details"});
  const absl::Status status = Embed(10, {.max_in_flight = 1});
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_THAT(answers_, SizeIs(10));
  EXPECT_THAT(answers_, Each(Pair(_, 1)));
}

TEST_F(StreamTest, AServerThatAnswersNothingIsAnError) {
  service_.EndStreamsAfter(0, grpc::Status::OK);
  EXPECT_EQ(Embed(2, {.max_attempts = 3}).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(service_.calls(), 3);
}

TEST_F(StreamTest, DoesNotWaitBeyondTheTimeout) {
  service_.FailNext({Overload(60'000), ""});
  const absl::Time started = absl::Now();
  EXPECT_EQ(Embed(1, {.timeout = absl::Seconds(20)}).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_LT(absl::Now() - started, absl::Seconds(15));
  EXPECT_EQ(service_.calls(), 1);
}

TEST_F(StreamTest, WaitsAsLongAsAnOverloadedServerSays) {
  service_.FailNext({Overload(1500), ""});  // The delay is longer than the first delay without a hint.
  const absl::Time started = absl::Now();
  EXPECT_TRUE(Embed(1, {}).ok());
  EXPECT_GE(absl::Now() - started, absl::Milliseconds(1500));
  EXPECT_EQ(service_.calls(), 2);
}

// gRPC retries only unary calls.
TEST_F(StreamTest, GrpcOpensNoStreamAgain) {
  service_.FailNext({{grpc::UNAVAILABLE, "draining"}, ""});
  EXPECT_EQ(Embed(1, {.max_attempts = 1}).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(service_.calls(), 1);
}

TEST_F(StreamTest, ResourceExhaustedWithoutARetryDelayIsFinal) {
  service_.FailNext({{grpc::RESOURCE_EXHAUSTED, "larger than max"}, ""});
  EXPECT_EQ(Embed(1, {}).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(service_.calls(), 1);
}

TEST_F(StreamTest, ARefusedInputIsSentAgain) {
  service_.RefuseInputs(4, 1);
  EXPECT_TRUE(Embed(10, {}).ok());
  EXPECT_THAT(answers_, SizeIs(10));
  EXPECT_THAT(answers_, Each(Pair(_, 1)));
  EXPECT_EQ(service_.inputs(), 14);
  EXPECT_EQ(failed_, 0);
}

TEST_F(StreamTest, ARefusedInputIsSentAgainAfterTheDelay) {
  service_.RefuseInputs(1, 700);
  const absl::Time started = absl::Now();
  EXPECT_TRUE(Embed(1, {}).ok());
  EXPECT_GE(absl::Now() - started, absl::Milliseconds(700));
  EXPECT_EQ(failed_, 0);
}

// When the only input is refused, the client has nothing more to send. It has therefore closed its side of the stream
// before the refusal arrives.
TEST_F(StreamTest, ARefusedInputIsSentAgainAfterTheLast) {
  service_.HoldFirstUntil(2);
  service_.RefuseInputs(1, 1);
  EXPECT_TRUE(Embed(1, {.max_attempts = 2}).ok());
  EXPECT_EQ(service_.calls(), 2);
  EXPECT_EQ(failed_, 0);
}

TEST_F(StreamTest, ARefusedInputFailsAfterTheLastAttempt) {
  service_.RefuseInputs(100, 1);
  EXPECT_TRUE(Embed(1, {.max_attempts = 3}).ok());
  EXPECT_EQ(service_.inputs(), 3);
  EXPECT_EQ(failed_, 1);
}

TEST_F(StreamTest, ARefusedInputDoesNotWaitBeyondTheTimeout) {
  service_.RefuseInputs(1, 900);
  EXPECT_TRUE(Embed(1, {.timeout = absl::Milliseconds(800)}).ok());
  EXPECT_EQ(service_.inputs(), 1);
  EXPECT_EQ(failed_, 1);
}

TEST_F(StreamTest, AnErrorInPlaceOfAnInputIsItsAnswer) {
  EmbedStream stream(client_, {}, {}, Count());
  EXPECT_TRUE(stream.Write(Text(1)).ok());
  EXPECT_TRUE(stream.Write(absl::InvalidArgumentError("not UTF-8")).ok());
  EXPECT_EQ(last_error_, grpc::INVALID_ARGUMENT);
  EXPECT_TRUE(stream.Write(Text(1)).ok());
  EXPECT_TRUE(stream.Finish().ok());
  EXPECT_THAT(answers_, UnorderedElementsAre(Pair(0, 1), Pair(1, 1), Pair(2, 1)));
  EXPECT_EQ(failed_, 1);
  EXPECT_EQ(service_.inputs(), 2);
}

TEST_F(StreamTest, CanBeCancelledFromAnotherThread) {
  service_.StopReading();
  std::stop_source stop;
  EmbedStream stream(client_, {}, {.max_in_flight = 1, .timeout = absl::InfiniteDuration(), .stop = stop.get_token()},
                     Count());
  EXPECT_TRUE(stream.Write(LongText()).ok());
  const std::jthread canceller([&] {
    while (service_.calls() == 0) absl::SleepFor(absl::Milliseconds(1));
    stop.request_stop();
  });
  EXPECT_EQ(stream.Write(Text(1)).code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(stream.Finish().code(), absl::StatusCode::kCancelled);
}

TEST_F(StreamTest, AWaitForTheNextAttemptCanBeCancelled) {
  service_.FailNext({Overload(600'000), ""});
  std::stop_source stop;
  EmbedStream stream(client_, {}, {.timeout = absl::InfiniteDuration(), .stop = stop.get_token()}, Count());
  EXPECT_TRUE(stream.Write(Text(1)).ok());
  while (service_.calls() == 0) absl::SleepFor(absl::Milliseconds(1));
  absl::SleepFor(absl::Milliseconds(100));
  stop.request_stop();
  EXPECT_EQ(stream.Finish().code(), absl::StatusCode::kCancelled);
}

TEST_F(StreamTest, AnApiKeyThatIsNotAValidHeaderIsRefused) {
  Client client({.server = service_.address(), .api_key = "a\nb"});
  EmbedStream stream(client, {}, {}, Count());
  static_cast<void>(stream.Write(Text(1)));
  EXPECT_EQ(stream.Finish().code(), absl::StatusCode::kInvalidArgument);
}

// A part of zero bytes would never end.
TEST_F(StreamTest, OptionsBelowTheirMinimumAreRefused) {
  const std::pair<StreamOptions, const char*> rows[] = {
      {{.max_message_bytes = 0}, "max_message_bytes: is 0; it must be 4 or more"},
      {{.max_message_bytes = 3}, "max_message_bytes: is 3; it must be 4 or more"},
      {{.max_attempts = 0}, "max_attempts: is 0; it must be 1 or more"},
      {{.max_attempts = -1}, "max_attempts: is -1; it must be 1 or more"},
  };
  for (const auto& [options, said] : rows) {
    EmbedStream stream(client_, {}, options, Count());
    EXPECT_EQ(stream.Write(Text(9)), absl::InvalidArgumentError(said));
    EXPECT_EQ(stream.Finish(), absl::InvalidArgumentError(said));
  }
  EXPECT_EQ(service_.calls(), 0);
}

// The code points have 1 to 4 bytes. A part that ended within one would not be UTF-8, which the server refuses.
TEST_F(StreamTest, APartIsWholeCodePoints) {
  std::string text;
  for (int i = 0; i < 50; ++i) text += "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xf0\x9f\x98\x80";
  v1::Input input;
  input.set_text(text);
  float bytes = 0;
  EmbedStream stream(client_, {}, {.max_message_bytes = 4}, [&bytes](uint64_t, const v1::EmbedStreamResponse& answer) {
    bytes = answer.result().embeddings(0).values(0);
    return absl::OkStatus();
  });
  EXPECT_TRUE(stream.Write(input).ok());
  EXPECT_TRUE(stream.Finish().ok());
  EXPECT_EQ(bytes, static_cast<float>(text.size()));
  EXPECT_LT(service_.largest_message(), 30u);
}

TEST_F(StreamTest, SendsNoMoreThanMaxAheadOfTheFirstWithoutAnAnswer) {
  service_.HoldFirstUntil(5);
  EXPECT_TRUE(Embed(20, {.max_in_flight = 2, .max_ahead = 5}).ok());
  EXPECT_THAT(answers_, SizeIs(20));

  service_.HoldFirstUntil(6);
  const int before = service_.inputs();
  EXPECT_EQ(Embed(20, {.max_in_flight = 2, .max_ahead = 5, .timeout = absl::Seconds(1)}).code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(service_.inputs() - before, 5);
}

TEST_F(StreamTest, FinishWaitsForOnAnswer) {
  absl::Notification called;
  EmbedStream stream(client_, {}, {}, [&called](uint64_t, const v1::EmbedStreamResponse&) {
    called.Notify();
    absl::SleepFor(absl::Milliseconds(200));
    return absl::DataLossError("the disk is full");
  });
  EXPECT_TRUE(stream.Write(Text(1)).ok());
  called.WaitForNotification();
  EXPECT_EQ(stream.Finish().code(), absl::StatusCode::kDataLoss);
}

TEST_F(StreamTest, TheTimeoutHoldsAgainAfterALongOnAnswer) {
  service_.HoldFirstUntil(100);
  EmbedStream stream(client_, {}, {.max_ahead = 2, .timeout = absl::Seconds(1)},
                     [](uint64_t, const v1::EmbedStreamResponse&) {
                       absl::SleepFor(absl::Milliseconds(1600));
                       return absl::OkStatus();
                     });
  EXPECT_TRUE(stream.Write(Text(1)).ok());  // This input is never answered.
  EXPECT_TRUE(stream.Write(Text(1)).ok());
  EXPECT_EQ(stream.Write(Text(1)).code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(StreamTest, TimeInOnAnswerDoesNotCountAgainstTheTimeout) {
  std::atomic<int> answers = 0;
  EmbedStream stream(client_, {}, {.timeout = absl::Seconds(1)}, [&answers](uint64_t, const v1::EmbedStreamResponse&) {
    if (answers++ == 0) absl::SleepFor(absl::Milliseconds(1600));
    return absl::OkStatus();
  });
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(stream.Write(Text(1)).ok());
  EXPECT_TRUE(stream.Finish().ok());
  EXPECT_EQ(answers, 4);
}

}  // namespace
}  // namespace longembed::client
