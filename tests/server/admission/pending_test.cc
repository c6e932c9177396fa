#include "server/admission/pending.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"
#include "server/errors/errors.h"

namespace longembed {
namespace {

using ::testing::HasSubstr;

void ExpectRefused(const absl::Status& status, const char* reason, const char* label) {
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_EQ(ErrorReason(status), reason);
  EXPECT_EQ(OverloadLabel(status), label);
  ASSERT_TRUE(RetryDelay(status).has_value());
  EXPECT_GT(*RetryDelay(status), absl::ZeroDuration());
}

TEST(PendingCallsTest, BytesAreBoundAndGivenBack) {
  PendingCalls calls(100);
  auto first = calls.Begin("a", 60, 0);
  const auto second = calls.Begin("b", 40, 0);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(calls.bytes(), 100);
  const absl::Status refused = calls.Begin("c", 1, 0).status();
  ExpectRefused(refused, "PENDING_BYTES", "pending_bytes");
  EXPECT_THAT(std::string(refused.message()), HasSubstr("100 of at most 100 bytes"));
  EXPECT_EQ(calls.bytes(), 100);
  first->reset();
  EXPECT_EQ(calls.bytes(), 40);
  EXPECT_TRUE(calls.Begin("c", 60, 0).ok());
}

// Request size has a limit of its own: a call larger than the whole bound runs when it is alone.
TEST(PendingCallsTest, ACallAloneMayHaveAnySize) {
  PendingCalls calls(100);
  const auto large = calls.Begin("a", 1000, 0);
  ASSERT_TRUE(large.ok());
  ExpectRefused(calls.Begin("b", 1, 0).status(), "PENDING_BYTES", "pending_bytes");
}

TEST(PendingCallsTest, AddedBytesCountUntilTheEndAndAreNeverRefused) {
  PendingCalls calls(100);
  {
    const auto call = calls.Begin("a", 10, 0);
    (*call)->Add(500);
    EXPECT_EQ(calls.bytes(), 510);
    ExpectRefused(calls.Begin("b", 0, 0).status(), "PENDING_BYTES", "pending_bytes");
  }
  EXPECT_EQ(calls.bytes(), 0);
  EXPECT_TRUE(calls.Begin("b", 100, 0).ok());
}

// Whoever was there first, others find room.
TEST(PendingCallsTest, AClientGetsFourFifths) {
  PendingCalls calls(1000);
  std::vector<std::unique_ptr<PendingCall>> greedy;
  absl::Status refused;
  while (refused.ok()) {
    auto message = greedy.empty() ? calls.Begin("greedy", 10, 0) : calls.Hold("greedy", 10);
    refused = message.status();
    if (message.ok()) greedy.push_back(*std::move(message));
  }
  ExpectRefused(refused, "CLIENT_PENDING_BYTES", "client_pending_bytes");
  EXPECT_GE(greedy.size(), 79u);
  EXPECT_LE(greedy.size(), 81u);
  EXPECT_FALSE(calls.HasRoom("greedy"));
  EXPECT_TRUE(calls.HasRoom("modest"));
  EXPECT_TRUE(calls.Begin("modest", 150, 0).ok());
}

TEST(PendingCallsTest, MessagesOfAStreamAreNoCalls) {
  PendingCalls calls(1000);
  const auto stream = calls.Begin("a", 0, 1);
  const auto first = calls.Hold("a", 10), second = calls.Hold("a", 10);
  EXPECT_TRUE(stream.ok() && first.ok() && second.ok());
  ExpectRefused(calls.Begin("a", 1, 1).status(), "CONCURRENT_CALLS", "concurrent_calls");
  EXPECT_EQ(calls.bytes(), 20);
}

TEST(PendingCallsTest, AClientsCallsAreBound) {
  PendingCalls calls(1000);
  auto first = calls.Begin("a", 1, 2);
  const auto second = calls.Begin("a", 1, 2);
  ASSERT_TRUE(first.ok() && second.ok());
  const absl::Status refused = calls.Begin("a", 1, 2).status();
  ExpectRefused(refused, "CONCURRENT_CALLS", "concurrent_calls");
  EXPECT_THAT(std::string(refused.message()), HasSubstr("has 2 calls"));
  EXPECT_EQ(calls.bytes(), 2);  // The refused one holds nothing.
  EXPECT_TRUE(calls.Begin("b", 1, 2).ok());
  first->reset();
  EXPECT_TRUE(calls.Begin("a", 1, 2).ok());
}

TEST(PendingCallsTest, ALimitMayShrinkWhileCallsRun) {
  PendingCalls calls(1000);
  auto first = calls.Begin("a", 1, 0);
  const auto second = calls.Begin("a", 1, 0);
  ExpectRefused(calls.Begin("a", 1, 1).status(), "CONCURRENT_CALLS", "concurrent_calls");
  first->reset();
  ExpectRefused(calls.Begin("a", 1, 1).status(), "CONCURRENT_CALLS", "concurrent_calls");
}

TEST(PendingCallsTest, IsThreadSafe) {
  PendingCalls calls(500);
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&calls, t] {
      for (int i = 0; i < 3000; ++i) {
        auto call = calls.Begin(absl::StrCat((t + i) % 3), 1 + i % 300, i % 4);
        if (call.ok() && i % 2 == 0) (*call)->Add(i % 50);
        EXPECT_GE(calls.bytes(), 0);
      }
    });
  }
  threads.clear();
  EXPECT_EQ(calls.bytes(), 0);
  for (const char* client : {"0", "1", "2"}) EXPECT_TRUE(calls.Begin(client, 500, 1).ok());
}

}  // namespace
}  // namespace longembed
