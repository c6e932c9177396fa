#include "server/admission/ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"
#include "server/errors/errors.h"

namespace longembed {
namespace {

using ::testing::HasSubstr;

void ExpectLedgerRefuses(const absl::Status& status, const char* reason, const char* label) {
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_EQ(ErrorReason(status), reason);
  EXPECT_EQ(OverloadLabel(status), label);
  ASSERT_TRUE(RetryDelay(status).has_value());
  EXPECT_GT(*RetryDelay(status), absl::ZeroDuration());
}

constexpr int64_t kCall = Ledger::kCallBytes;

std::unique_ptr<Charge> Held(Ledger& ledger, const std::string& client, int64_t bytes) {
  std::unique_ptr<Charge> charge = ledger.BeginMessage(client);
  EXPECT_TRUE(charge->Hold(Memory::kRequests, bytes).ok());
  return charge;
}

std::vector<std::unique_ptr<Charge>> Calls(Ledger& ledger, std::initializer_list<const char*> clients) {
  std::vector<std::unique_ptr<Charge>> calls;
  for (const char* client : clients) calls.push_back(*ledger.BeginCall(client, 0));
  return calls;
}

TEST(LedgerTest, BytesAreBoundedAndReleased) {
  Ledger ledger(100);
  auto first = Held(ledger, "a", 60);
  const auto second = Held(ledger, "b", 40);
  EXPECT_EQ(ledger.bytes(), 100);
  const auto third = ledger.BeginMessage("c");
  const absl::Status refused = third->Hold(Memory::kRequests, 1);
  ExpectLedgerRefuses(refused, "PENDING_BYTES", "pending_bytes");
  EXPECT_THAT(std::string(refused.message()), HasSubstr("100 of at most 100 bytes"));
  EXPECT_EQ(ledger.bytes(), 100);
  first.reset();
  EXPECT_EQ(ledger.bytes(), 40);
  EXPECT_TRUE(third->Hold(Memory::kRequests, 60).ok());
}

TEST(LedgerTest, ReportsBytesByKind) {
  Ledger ledger(1 << 20);
  const auto call = ledger.BeginCall("a", 0);
  ASSERT_TRUE(call.ok());
  ASSERT_TRUE((*call)->Hold(Memory::kRequests, 10).ok());
  ASSERT_TRUE((*call)->Hold(Memory::kPlans, 20).ok());
  ASSERT_TRUE((*call)->HoldMore(Memory::kPlans, 5).ok());
  ASSERT_TRUE((*call)->Hold(Memory::kTokenizer, 7).ok());
  (*call)->Correct(Memory::kAnswers, 40);
  (*call)->Correct(Memory::kRequests, 3);
  const std::map<std::string, int64_t> held{
      {"calls", kCall}, {"requests", 3}, {"tokenizer", 7}, {"plans", 25}, {"answers", 40}};
  EXPECT_EQ(ledger.held(), held);
  EXPECT_EQ(ledger.bytes(), kCall + 75);
}

// Calls have limits of their own. A call that exceeds the whole limit of the ledger may run if it is alone.
TEST(LedgerTest, AClientThatHoldsAllMayHoldMore) {
  Ledger ledger(100);
  const auto large = Held(ledger, "a", 1000);
  EXPECT_TRUE(large->Hold(Memory::kPlans, 500).ok());
  ExpectLedgerRefuses(ledger.BeginMessage("b")->Hold(Memory::kRequests, 1), "PENDING_BYTES", "pending_bytes");
  ExpectLedgerRefuses(ledger.BeginCall("b", 0).status(), "PENDING_BYTES", "pending_bytes");
}

// A message has a charge apart from its call's. The fixed costs of calls, its own and those that are idle, do not keep
// it from being alone.
TEST(LedgerTest, FixedCostsOfCallsLeaveAMessageAlone) {
  Ledger ledger(10 * kCall);
  const auto calls = Calls(ledger, {"a", "a", "b"});
  const auto message = ledger.BeginMessage("a");
  EXPECT_TRUE(message->Hold(Memory::kRequests, 20 * kCall).ok());
  EXPECT_TRUE(message->Hold(Memory::kPlans, 20 * kCall).ok());
  ExpectLedgerRefuses(ledger.BeginMessage("a")->Hold(Memory::kRequests, 1), "PENDING_BYTES", "pending_bytes");
  ExpectLedgerRefuses(ledger.BeginMessage("b")->Hold(Memory::kRequests, 1), "PENDING_BYTES", "pending_bytes");
  ExpectLedgerRefuses(ledger.BeginCall("b", 0).status(), "PENDING_BYTES", "pending_bytes");
}

// Idle calls alone reach the limit, too.
TEST(LedgerTest, FixedCostsOfCallsAreBounded) {
  Ledger ledger(3 * kCall);
  const auto calls = Calls(ledger, {"a", "b", "c"});
  ExpectLedgerRefuses(ledger.BeginCall("d", 0).status(), "PENDING_BYTES", "pending_bytes");
}

TEST(LedgerTest, CorrectionsAreNeverRefused) {
  Ledger ledger(100);
  {
    const auto charge = Held(ledger, "a", 10);
    charge->Correct(Memory::kAnswers, 500);
    EXPECT_EQ(ledger.bytes(), 510);
  }
  EXPECT_EQ(ledger.bytes(), 0);
}

// Other clients must find room, whichever client came first.
TEST(LedgerTest, AClientGetsFourFifths) {
  Ledger ledger(1000);
  std::vector<std::unique_ptr<Charge>> greedy;
  absl::Status refused;
  while (refused.ok()) {
    auto message = ledger.BeginMessage("greedy");
    refused = message->Hold(Memory::kRequests, 10);
    if (refused.ok()) greedy.push_back(std::move(message));
  }
  ExpectLedgerRefuses(refused, "CLIENT_PENDING_BYTES", "client_pending_bytes");
  EXPECT_GE(greedy.size(), 79u);
  EXPECT_LE(greedy.size(), 81u);
  // The client's existing charges must not grow either.
  ExpectLedgerRefuses(greedy.front()->HoldMore(Memory::kPlans, 50), "CLIENT_PENDING_BYTES", "client_pending_bytes");
  EXPECT_FALSE(ledger.HasRoom("greedy"));
  EXPECT_TRUE(ledger.HasRoom("modest"));
  EXPECT_TRUE(ledger.BeginMessage("modest")->Hold(Memory::kRequests, 150).ok());
}

// A probe that fails because memory is short would restart the server.
TEST(LedgerTest, ExemptChargesFindRoomInAFullLedger) {
  Ledger ledger(100);
  const auto large = Held(ledger, "a", 1000);
  for (const char* client : {"a", "probe"}) {
    const auto call = ledger.BeginCall(client, 0, /*exempt=*/true);
    const auto message = ledger.BeginMessage(client, /*exempt=*/true);
    EXPECT_TRUE(call.ok()) << call.status();
    EXPECT_TRUE(message->Hold(Memory::kRequests, 300).ok());
    EXPECT_EQ(ledger.bytes(), 1000 + kCall + 300);
  }
  EXPECT_EQ(ledger.bytes(), 1000);
}

TEST(LedgerTest, ExemptChargesAreBounded) {
  Ledger ledger(100);
  const auto large = Held(ledger, "a", 1000);
  const auto large_check = ledger.BeginMessage("b", /*exempt=*/true);
  ExpectLedgerRefuses(large_check->Hold(Memory::kRequests, Ledger::kExemptBytes), "PENDING_BYTES", "pending_bytes");
  std::vector<std::unique_ptr<Charge>> unread;
  absl::Status refused;
  while (refused.ok()) {
    auto call = ledger.BeginCall("greedy", 0, /*exempt=*/true);
    refused = call.status();
    if (call.ok()) unread.push_back(*std::move(call));
  }
  ExpectLedgerRefuses(refused, "PENDING_BYTES", "pending_bytes");
  EXPECT_LE(ledger.bytes(), 1000 + Ledger::kExemptBytes);
  EXPECT_GT(unread.size(), 300u);
  EXPECT_TRUE(ledger.BeginCall("modest", 0, /*exempt=*/true).ok());
}

TEST(LedgerTest, MessagesOfAStreamAreNoCalls) {
  Ledger ledger(10 * kCall);
  const auto stream = ledger.BeginCall("a", 1);
  const auto first = Held(ledger, "a", 10), second = Held(ledger, "a", 10);
  EXPECT_TRUE(stream.ok());
  ExpectLedgerRefuses(ledger.BeginCall("a", 1).status(), "CONCURRENT_CALLS", "concurrent_calls");
  EXPECT_EQ(ledger.bytes(), kCall + 20);
}

TEST(LedgerTest, AClientsCallsAreBounded) {
  Ledger ledger(10 * kCall);
  auto first = ledger.BeginCall("a", 2);
  const auto second = ledger.BeginCall("a", 2);
  ASSERT_TRUE(first.ok() && second.ok());
  const absl::Status refused = ledger.BeginCall("a", 2).status();
  ExpectLedgerRefuses(refused, "CONCURRENT_CALLS", "concurrent_calls");
  EXPECT_THAT(std::string(refused.message()), HasSubstr("has 2 calls"));
  EXPECT_EQ(ledger.bytes(), 2 * kCall);  // The refused call holds nothing.
  EXPECT_TRUE(ledger.BeginCall("b", 2).ok());
  first->reset();
  EXPECT_TRUE(ledger.BeginCall("a", 2).ok());
}

TEST(LedgerTest, IsThreadSafe) {
  Ledger ledger(500);
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&ledger, t] {
      for (int i = 0; i < 3000; ++i) {
        const auto charge = ledger.BeginMessage(absl::StrCat((t + i) % 3));
        const absl::Status held = charge->Hold(Memory::kRequests, 1 + i % 300);
        if (held.ok() && i % 2 == 0) charge->Correct(Memory::kAnswers, i % 50);
        const auto sibling = charge->ForSameClient();
        EXPECT_GE(ledger.bytes(), 0);
      }
    });
  }
  threads.clear();
  EXPECT_EQ(ledger.bytes(), 0);
}

}  // namespace
}  // namespace longembed
