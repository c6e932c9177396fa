#include "client/stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <string>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "tests/testing/scripted_service.h"

namespace longembed::client {
namespace {

using ::testing::_;
using ::testing::Each;
using ::testing::Pair;
using ::testing::SizeIs;

v1::Input Text(size_t bytes) {
  v1::Input input;
  input.set_text(std::string(bytes, 'x'));
  return input;
}

// More than flow control lets a client send to a server that does not read.
v1::Input LongText() { return Text(64 << 20); }

class StreamTest : public ::testing::Test {
 protected:
  // Counts the answers to each input.
  EmbedStream::OnAnswer Count() {
    return [this](uint64_t number, const v1::EmbedStreamResponse&) {
      ++answers_[number];
      return absl::OkStatus();
    };
  }

  // What ended a stream of so many inputs.
  absl::Status Embed(int inputs, const StreamOptions& options) {
    EmbedStream stream(client_, {}, options, Count());
    for (int i = 0; i < inputs; ++i) {
      if (!stream.Write(Text(i + 1)).ok()) break;
    }
    return stream.Finish();
  }

  ScriptedService service_;
  Client client_{{.server = service_.address(), .retry = {.max_attempts = 3, .first_delay = absl::Milliseconds(1)}}};
  std::map<uint64_t, int> answers_;
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
    absl::SleepFor(absl::Milliseconds(300));  // By now it sends what nobody reads.
  }
  EXPECT_LT(absl::Now() - started, absl::Minutes(1));
}

TEST_F(StreamTest, GoesOnWhereTheServerEndsStreamsThatAreTooOld) {
  service_.EndStreamsAfter(3, {grpc::StatusCode::UNAVAILABLE, "a stream may last for 10m", "details"});
  const absl::Status status = Embed(60, {.max_in_flight = 8});
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_THAT(answers_, SizeIs(60));
  EXPECT_THAT(answers_, Each(Pair(_, 1)));
  EXPECT_EQ(service_.calls(), 20);  // More than a RetryPolicy's attempts: every one got somewhere.
}

TEST_F(StreamTest, GoesOnWhereAStreamThatIsTooOldHadNothingToAnswer) {
  service_.EndStreamsAfter(1, {grpc::StatusCode::UNAVAILABLE, "a stream may last for 10m", "details"});
  const absl::Status status = Embed(10, {.max_in_flight = 1});
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_THAT(answers_, SizeIs(10));
  EXPECT_THAT(answers_, Each(Pair(_, 1)));
}

TEST_F(StreamTest, AServerThatAnswersNothingIsAnError) {
  service_.EndStreamsAfter(0, grpc::Status::OK);
  EXPECT_EQ(Embed(2, {}).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(service_.calls(), 3);
}

TEST_F(StreamTest, DoesNotWaitBeyondTheTimeout) {
  service_.FailNext({{grpc::RESOURCE_EXHAUSTED, "overloaded"}, "60000"});
  const absl::Time started = absl::Now();
  EXPECT_EQ(Embed(1, {.timeout = absl::Seconds(20)}).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_LT(absl::Now() - started, absl::Seconds(15));
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

TEST_F(StreamTest, TheTimeOfOnAnswerIsNotTheServers) {
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
