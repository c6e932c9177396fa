#include "server/admission/admission.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"
#include "tests/testing/fake_clock.h"

namespace longembed {
namespace {

using ::testing::HasSubstr;

using MaybePermit = absl::StatusOr<std::shared_ptr<Permit>>;
using Permits = std::vector<std::shared_ptr<Permit>>;

constexpr int64_t kTokens = 1000;

class AdmissionTest : public ::testing::Test {
 protected:
  MaybePermit Admit(const ResourceRequest& request) { return admission_.Admit(model_, request); }

  // Admits this many calls, each of another client.
  Permits Fill(int calls, ResourceRequest each) {
    Permits permits;
    for (int i = 0; i < calls; ++i) {
      each.client = absl::StrCat("filler ", ++fillers_);
      MaybePermit permit = Admit(each);
      EXPECT_TRUE(permit.ok()) << permit.status();
      if (permit.ok()) permits.push_back(*std::move(permit));
    }
    return permits;
  }

  // Admits the same request until it is refused. Appends the permits to `permits` and returns the refusal.
  absl::Status AdmitUntilRefused(const ResourceRequest& request, Permits& permits) {
    while (true) {
      MaybePermit permit = Admit(request);
      if (!permit.ok()) return permit.status();
      permits.push_back(*std::move(permit));
    }
  }

  // Checks that the whole queue is free, that no work is counted, and that no client is stored.
  void ExpectNothingIsHeld() {
    EXPECT_EQ(admission_.expected_wait(), absl::ZeroDuration());
    const MaybePermit one = Admit({.client = "p", .tokens = 1, .work = absl::Seconds(1)});
    const MaybePermit two = Admit({.client = "p", .tokens = 1, .work = absl::Seconds(1)});
    ASSERT_TRUE(one.ok() && two.ok());
    EXPECT_EQ((*one)->start(), clock_.Now());
    EXPECT_EQ((*two)->start(), clock_.Now() + absl::Seconds(1));  // With a second client it would be two seconds.
    const Permits rest = Fill((kTokens - 2) / 2, {.tokens = 2});
    const MaybePermit refused = Admit({.client = "r", .priority = Priority::kBulk, .oversized = true, .tokens = 1});
    EXPECT_THAT(std::string(refused.status().message()), HasSubstr(absl::StrCat("holds ", kTokens, " of")));
    // The expected wait is only the work of the two probes.
    EXPECT_LE(RetryDelay(refused.status()), absl::Seconds(2) * 1.25);
  }

  FakeClock clock_;
  Admission admission_{{.max_wait = absl::Seconds(16), .max_bulk_wait = absl::Seconds(80)}, clock_};
  ModelBudget model_{kTokens};
  int fillers_ = 0;
};

void ExpectRefused(const absl::Status& status, const char* reason, const char* label) {
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_EQ(ErrorReason(status), reason) << status;
  EXPECT_EQ(OverloadLabel(status), label);
  ASSERT_TRUE(RetryDelay(status).has_value());
  EXPECT_GT(*RetryDelay(status), absl::ZeroDuration());
  EXPECT_LE(*RetryDelay(status), absl::Seconds(75));
}

TEST_F(AdmissionTest, AnEmptyQueueTakesACallOfAnySize) {
  const MaybePermit huge = Admit({.client = "a", .tokens = 50 * kTokens, .work = absl::Hours(1)});
  EXPECT_TRUE(huge.ok()) << huge.status();
}

TEST_F(AdmissionTest, TokensAreBounded) {
  const Permits full = Fill(10, {.tokens = 100});
  const absl::Status refused = Admit({.client = "a", .tokens = 1}).status();
  ExpectRefused(refused, "QUEUE_TOKENS", "queue_tokens");
  EXPECT_THAT(std::string(refused.message()), HasSubstr("1000 of at most 1000 tokens"));
}

// A huge call interleaves with others, so it does not shut them out.
TEST_F(AdmissionTest, AHugeCallLeavesRoomForOthers) {
  const MaybePermit huge = Admit({.client = "a", .tokens = 50 * kTokens, .work = absl::Hours(1)});
  const MaybePermit second = Admit({.client = "b", .tokens = 100, .work = absl::Seconds(1)});
  EXPECT_TRUE(second.ok()) << second.status();
}

TEST_F(AdmissionTest, ModelsHaveTokensOfTheirOwnAndShareTheDevice) {
  ModelBudget other(kTokens);
  const Permits full = Fill(10, {.tokens = 100, .work = absl::Seconds(1.7)});
  // The queue of the other model is empty.
  const MaybePermit first = admission_.Admit(other, {.client = "b", .tokens = 1});
  ASSERT_TRUE(first.ok());
  ExpectRefused(admission_.Admit(other, {.client = "c", .tokens = 1}).status(), "QUEUE_WAIT", "queue_wait");
}

// The models share the device. A call alone in its model's queue still waits for the other models' work.
TEST_F(AdmissionTest, WorkOfOtherModelsMakesACallLate) {
  ModelBudget other(kTokens);
  ResourceRequest call{.client = "b", .tokens = 1, .work = absl::Hours(1), .deadline = clock_.Now() + absl::Seconds(8)};
  EXPECT_TRUE(admission_.Admit(other, call).ok());  // Nothing waits, so its size does not matter.
  Permits busy;
  for (int i = 0; i < 7; ++i) busy.push_back(*Admit({.client = "a", .tokens = 1, .work = absl::Seconds(1)}));
  call.client = "a";
  call.work = absl::Seconds(1);
  ExpectRefused(admission_.Admit(other, call).status(), "DEADLINE_TOO_SHORT", "deadline_too_short");
  call.deadline = clock_.Now() + absl::Seconds(80);
  EXPECT_TRUE(admission_.Admit(other, call).ok());
}

TEST_F(AdmissionTest, BulkMayFillHalfOfTheTokens) {
  const Permits interactive = Fill(1, {.tokens = 100});
  const Permits bulk = Fill(4, {.priority = Priority::kBulk, .tokens = 100});
  const absl::Status refused = Admit({.client = "a", .priority = Priority::kBulk, .tokens = 1}).status();
  ExpectRefused(refused, "QUEUE_TOKENS", "queue_tokens");
  EXPECT_THAT(std::string(refused.message()), HasSubstr("500 of at most 500 tokens"));
  Fill(5, {.tokens = 100});
}

TEST_F(AdmissionTest, TheExpectedWaitIsBounded) {
  const Permits first = Fill(9, {.tokens = 1, .work = absl::Seconds(1)});
  EXPECT_EQ(admission_.expected_wait(), absl::Seconds(9));
  const Permits more = Fill(4, {.tokens = 1, .work = absl::Seconds(2)});  // The last call itself waits for 15 s.
  const absl::Status refused = Admit({.client = "a", .tokens = 1}).status();
  ExpectRefused(refused, "QUEUE_WAIT", "queue_wait");
  EXPECT_THAT(std::string(refused.message()), HasSubstr("about 17s; the limit is 16s"));
}

// Calls are expected to run in order of arrival. A call that would be late is not started.
TEST_F(AdmissionTest, ACallThatWouldBeLateIsRefused) {
  const ResourceRequest call{
      .client = "a", .tokens = 1, .work = absl::Seconds(1), .deadline = clock_.Now() + absl::Seconds(8)};
  Permits permits;
  const absl::Status refused = AdmitUntilRefused(call, permits);
  ExpectRefused(refused, "DEADLINE_TOO_SHORT", "deadline_too_short");
  EXPECT_EQ(permits.size(), 6u);  // At most three quarters of the time are promised.
  for (size_t i = 0; i < permits.size(); ++i) {
    EXPECT_EQ(permits[i]->due(), clock_.Now() + absl::Seconds(static_cast<double>(i + 1)));
  }
  ResourceRequest longer = call;
  longer.deadline = clock_.Now() + absl::Seconds(30);
  EXPECT_TRUE(Admit(longer).ok());
}

// The short call waits only for calls that are due before it.
TEST_F(AdmissionTest, AShortCallPassesLongOnesWithDeadlines) {
  const absl::Time deadline = clock_.Now() + absl::Seconds(100);
  const Permits permits = Fill(3, {.tokens = 1, .work = absl::Seconds(5), .deadline = deadline});
  const ResourceRequest shorter{
      .client = "short", .tokens = 1, .work = absl::Milliseconds(10), .deadline = clock_.Now() + absl::Seconds(1)};
  EXPECT_TRUE(Admit(shorter).ok());
}

TEST_F(AdmissionTest, TheTimeToTokenizeCountsToo) {
  const Permits busy = Fill(1, {.tokens = 1, .work = absl::Seconds(1)});
  ResourceRequest call{
      .client = "a", .tokens = 1, .work = absl::Seconds(1), .deadline = clock_.Now() + absl::Seconds(10)};
  EXPECT_TRUE(Admit(call).ok());
  call.tokenization = absl::Seconds(7);
  ExpectRefused(Admit(call).status(), "DEADLINE_TOO_SHORT", "deadline_too_short");
  call.deadline = absl::InfiniteFuture();
  call.tokenization = absl::Seconds(17);
  const absl::Status refused = Admit(call).status();
  ExpectRefused(refused, "QUEUE_WAIT", "queue_wait");
  EXPECT_THAT(std::string(refused.message()), HasSubstr("about 18s; the limit is 16s"));
  EXPECT_GE(*RetryDelay(refused), absl::Seconds(18) * 0.75);  // A hint by the model's queue alone would be too short.
}

// The call is refused when its tokens have been counted.
TEST_F(AdmissionTest, ACallThatTurnsOutTooLongForItsDeadlineIsRefused) {
  const Permits busy = Fill(1, {.tokens = 1, .work = absl::Seconds(1)});
  const ResourceRequest call{
      .client = "a", .tokens = 1, .work = absl::Seconds(1), .deadline = clock_.Now() + absl::Seconds(8)};
  const MaybePermit permit = Admit(call), other = Admit(call);
  ASSERT_TRUE(permit.ok() && other.ok());
  EXPECT_TRUE((*permit)->Settle(1, absl::Seconds(2), /*oversized=*/false).ok());
  ExpectRefused((*other)->Settle(1, absl::Seconds(7), /*oversized=*/false), "DEADLINE_TOO_SHORT", "deadline_too_short");
}

TEST_F(AdmissionTest, BulkHasABudgetOfItsOwnAndWaitsForInteractiveWork) {
  const Permits bulk = Fill(8, {.priority = Priority::kBulk, .tokens = 1, .work = absl::Seconds(9)});
  EXPECT_EQ(admission_.expected_wait(), absl::ZeroDuration());  // Interactive calls run before bulk calls.
  const Permits interactive = Fill(9, {.tokens = 1, .work = absl::Seconds(1)});
  ExpectRefused(Admit({.client = "c", .priority = Priority::kBulk, .tokens = 1}).status(), "QUEUE_WAIT", "queue_wait");
  EXPECT_TRUE(Admit({.client = "c", .tokens = 1}).ok());
}

TEST_F(AdmissionTest, OversizedWorkCountsForOversizedOnly) {
  const Permits oversized = Fill(10, {.oversized = true, .tokens = 1, .work = absl::Seconds(1.7)});
  EXPECT_EQ(admission_.expected_wait(), absl::Seconds(17));  // The expected wait of another oversized sequence.
  EXPECT_TRUE(Admit({.client = "b", .tokens = 1, .work = absl::Seconds(1)}).ok());
  ExpectRefused(Admit({.client = "c", .oversized = true, .tokens = 1}).status(), "QUEUE_WAIT", "queue_wait");
}

// Oversized sequences run one after the other, so a long one is charged for all of its work.
TEST_F(AdmissionTest, AnOversizedCallIsChargedForAllOfItsWork) {
  const MaybePermit oversized = Admit({.client = "a", .oversized = true, .tokens = 1, .work = absl::Minutes(2)});
  EXPECT_EQ(admission_.expected_wait(), absl::Minutes(2));
  ExpectRefused(Admit({.client = "b", .oversized = true, .tokens = 1}).status(), "QUEUE_WAIT", "queue_wait");
  EXPECT_TRUE(Admit({.client = "c", .tokens = 1}).ok());
}

TEST_F(AdmissionTest, AnOversizedCallWaitsForOthersToo) {
  const Permits brief = Fill(10, {.tokens = 1, .work = absl::Seconds(1.7)});
  ExpectRefused(Admit({.client = "b", .oversized = true, .tokens = 1}).status(), "QUEUE_WAIT", "queue_wait");
}

TEST_F(AdmissionTest, AGreedyClientGetsFourFifthsOfTheTokens) {
  Permits greedy;
  ExpectRefused(AdmitUntilRefused({.client = "greedy", .tokens = 10}, greedy), "CLIENT_SHARE", "client_share");
  EXPECT_GE(greedy.size(), 78u);
  EXPECT_LE(greedy.size(), 81u);
  const MaybePermit other = Admit({.client = "modest", .tokens = 100});
  EXPECT_TRUE(other.ok()) << other.status();
}

TEST_F(AdmissionTest, AGreedyClientGetsFourFifthsOfTheWait) {
  Permits greedy;
  ExpectRefused(AdmitUntilRefused({.client = "greedy", .tokens = 1, .work = absl::Milliseconds(100)}, greedy),
                "CLIENT_SHARE", "client_share");
  EXPECT_GE(greedy.size(), 126u);  // The limit allows four fifths of 160.
  EXPECT_LE(greedy.size(), 130u);
  const MaybePermit other = Admit({.client = "modest", .tokens = 1, .work = absl::Milliseconds(100)});
  EXPECT_TRUE(other.ok()) << other.status();
}

// The work of all calls may exceed the bound, because an admitted call only had to fit behind what was due before it.
TEST_F(AdmissionTest, AClientThatHoldsNothingIsAdmittedToAnOvercommittedQueue) {
  Permits greedy;
  AdmitUntilRefused({.client = "greedy", .tokens = 1, .work = absl::Milliseconds(100)}, greedy);
  const MaybePermit large =
      Admit({.client = "b", .tokens = 1, .work = absl::Seconds(8), .deadline = clock_.Now() + absl::Hours(1)});
  EXPECT_GE(admission_.expected_wait(), absl::Seconds(20));
  const ResourceRequest call{.client = "newcomer", .tokens = 1, .work = absl::Milliseconds(100)};
  const MaybePermit first = Admit(call);
  EXPECT_TRUE(first.ok()) << first.status();
  ExpectRefused(Admit(call).status(), "CLIENT_SHARE", "client_share");
}

// Greedy clients of any number and in any order must not get everything, so that a newcomer finds room.
TEST_F(AdmissionTest, GreedyClientsLeaveRoomForANewcomer) {
  for (const int clients : {2, 3, 5, 8}) {
    std::vector<Permits> held(clients);
    bool any = true;
    while (any) {
      any = false;
      for (int c = 0; c < clients; ++c) {
        MaybePermit permit = Admit({.client = absl::StrCat("greedy ", c), .tokens = 5, .work = absl::Milliseconds(50)});
        any |= permit.ok();
        if (permit.ok()) held[c].push_back(*std::move(permit));
      }
    }
    size_t all = 0;
    for (const Permits& permits : held) {
      all += 5 * permits.size();
      EXPECT_GE(5 * permits.size(), 4 * kTokens / (1 + 4 * clients) - 10) << clients;  // The clients have equal shares.
    }
    // The greedy clients together hold at most 4k / (1 + 4k) of the tokens, where k is their number.
    EXPECT_LE(all, kTokens * 4 * clients / (1 + 4 * clients) + 5 * clients) << clients;
    const MaybePermit newcomer = Admit({.client = "newcomer", .tokens = 5, .work = absl::Milliseconds(50)});
    EXPECT_TRUE(newcomer.ok()) << clients << ": " << newcomer.status();
  }
  ExpectNothingIsHeld();
}

TEST_F(AdmissionTest, AClientsOwnLimitHoldsOverAllModels) {
  ModelBudget other(kTokens);
  ResourceRequest request{.client = "a", .max_client_tokens = 100, .tokens = 60};
  const MaybePermit first = Admit(request);
  ASSERT_TRUE(first.ok());
  request.tokens = 41;
  const absl::Status refused = admission_.Admit(other, request).status();
  ExpectRefused(refused, "CLIENT_LIMIT", "client_limit");
  EXPECT_THAT(std::string(refused.message()), HasSubstr("allows 100 waiting tokens"));
  request.tokens = 40;
  EXPECT_TRUE(admission_.Admit(other, request).ok());
  EXPECT_TRUE(Admit({.client = "b", .max_client_tokens = 100, .tokens = 41}).ok());
}

TEST_F(AdmissionTest, SettlingReplacesTheEstimate) {
  const MaybePermit permit = Admit({.client = "a", .tokens = 10, .work = absl::Seconds(1)});
  const Permits others = Fill(8, {.tokens = 100});
  ASSERT_TRUE((*permit)->Settle(200, absl::Seconds(2), false).ok());
  EXPECT_EQ(admission_.expected_wait(), absl::Seconds(2));
  EXPECT_THAT(std::string(Admit({.client = "c", .tokens = 1}).status().message()), HasSubstr("holds 1000 of"));
  ASSERT_TRUE((*permit)->Settle(1, absl::Milliseconds(1), false).ok());
  EXPECT_EQ(admission_.expected_wait(), absl::Milliseconds(1));
  EXPECT_TRUE(Admit({.client = "c", .tokens = 199}).ok());
}

TEST_F(AdmissionTest, ARefusedSettlementLeavesNothingHeld) {
  {
    const Permits others = Fill(8, {.tokens = 100, .work = absl::Milliseconds(125)});
    const MaybePermit permit = Admit({.client = "a", .tokens = 100, .work = absl::Seconds(1)});
    ExpectRefused((*permit)->Settle(201, absl::Seconds(2), false), "QUEUE_TOKENS", "queue_tokens");
    EXPECT_EQ(admission_.expected_wait(), absl::Seconds(1));
    EXPECT_TRUE(Admit({.client = "c", .tokens = 200}).ok());
    (*permit)->Release(100, absl::Seconds(1), /*batch=*/std::nullopt);  // Nothing is left to release.
    EXPECT_EQ(admission_.expected_wait(), absl::Seconds(1));
  }
  ExpectNothingIsHeld();
}

TEST_F(AdmissionTest, AMustFitSettlementNeverFails) {
  {
    const Permits others = Fill(8, {.tokens = 100});
    const MaybePermit permit = Admit({.client = "a", .tokens = 100});
    EXPECT_TRUE((*permit)->Settle(201, absl::Seconds(2), false, /*must_fit=*/true).ok());
    EXPECT_THAT(std::string(Admit({.client = "c", .tokens = 1}).status().message()), HasSubstr("holds 1001 of"));
  }
  ExpectNothingIsHeld();
}

// A call that is alone in the queue may have any size, even if its size is known only after tokenization.
TEST_F(AdmissionTest, ACallAloneSettlesToAnySize) {
  const MaybePermit permit = Admit({.client = "a", .tokens = 10});
  EXPECT_TRUE((*permit)->Settle(10 * kTokens, absl::Hours(1), true).ok());
}

TEST_F(AdmissionTest, SettlingMovesWorkToOversizedAndBack) {
  {
    const MaybePermit permit = Admit({.client = "a", .tokens = 10, .work = absl::Seconds(1)});
    ASSERT_TRUE((*permit)->Settle(10, absl::Minutes(1), /*oversized=*/true).ok());
    EXPECT_TRUE(Admit({.client = "b", .tokens = 1}).ok());  // No short call waits in front of this one.
    ASSERT_TRUE((*permit)->Settle(10, absl::Seconds(2), /*oversized=*/false).ok());
    EXPECT_EQ(admission_.expected_wait(), absl::Seconds(2));
    ASSERT_TRUE((*permit)->Settle(10, absl::Seconds(2), /*oversized=*/true).ok());
  }
  ExpectNothingIsHeld();
}

TEST_F(AdmissionTest, APermitIsReleasedInParts) {
  {
    const MaybePermit permit = Admit({.client = "a", .tokens = 90, .work = absl::Milliseconds(900)});
    for (int part = 1; part <= 8; ++part) {
      (*permit)->Release(10, absl::Milliseconds(100), /*batch=*/std::nullopt);
      EXPECT_EQ(admission_.expected_wait(), absl::Milliseconds(900 - 100 * part));
    }
    const Permits rest = Fill(99, {.tokens = 10});
    EXPECT_FALSE(Admit({.client = "c", .tokens = 1}).ok());
    (*permit)->Release(5000, absl::Hours(1),
                       /*batch=*/std::nullopt);  // Rounding may release slightly more than is held.
    EXPECT_EQ(admission_.expected_wait(), absl::ZeroDuration());
    EXPECT_TRUE(Admit({.client = "c", .tokens = 10}).ok());
    EXPECT_FALSE(Admit({.client = "c", .tokens = 11}).ok());
  }
  ExpectNothingIsHeld();
}

TEST_F(AdmissionTest, DestroyedPermitsLeaveNothingHeld) {
  for (const Priority priority : {Priority::kInteractive, Priority::kBulk}) {
    for (const bool oversized : {false, true}) {
      {
        ResourceRequest request{
            .client = "a", .priority = priority, .oversized = oversized, .tokens = 100, .work = absl::Seconds(1)};
        const MaybePermit whole = Admit(request), settled = Admit(request), released = Admit(request);
        ASSERT_TRUE(whole.ok() && settled.ok() && released.ok());
        ASSERT_TRUE((*settled)->Settle(7, absl::Milliseconds(3), !oversized).ok());
        (*released)->Release(33, absl::Milliseconds(333), /*batch=*/std::nullopt);
      }
      ExpectNothingIsHeld();
    }
  }
}

// Clients that are refused together must not return together. Retry delays therefore differ from the expected wait by
// up to a quarter.
TEST_F(AdmissionTest, RetryDelaysAreRandomized) {
  const auto expect_scattered = [this](int calls, const ResourceRequest& each, absl::Duration middle) {
    const Permits full = Fill(calls, each);
    std::set<absl::Duration> hints;
    for (int i = 0; i < 200; ++i) {
      const absl::Status refused = Admit({.client = "b", .priority = each.priority, .tokens = 1}).status();
      ASSERT_TRUE(RetryDelay(refused).has_value()) << refused;
      hints.insert(*RetryDelay(refused));
    }
    EXPECT_GE(*hints.begin(), middle * 0.74);
    EXPECT_LE(*hints.rbegin(), middle * 1.26);
    EXPECT_GT(hints.size(), 50u) << middle;
    EXPECT_GT(*hints.rbegin() - *hints.begin(), middle * 0.3);
  };
  expect_scattered(10, {.tokens = 100}, absl::Milliseconds(50));
  expect_scattered(10, {.tokens = 100, .work = absl::Seconds(1)}, absl::Seconds(10));
  expect_scattered(9, {.priority = Priority::kBulk, .tokens = 1, .work = absl::Seconds(9)}, absl::Seconds(60));
}

TEST_F(AdmissionTest, ALightClientStartsNowAndAGreedyOneLater) {
  const absl::Time now = clock_.Now();
  Permits greedy;
  for (int i = 0; i < 5; ++i) {
    greedy.push_back(*Admit({.client = "greedy", .tokens = 1, .work = absl::Seconds(1)}));
    EXPECT_EQ(greedy.back()->start(), now + absl::Seconds(i));
  }
  const MaybePermit light = Admit({.client = "light", .tokens = 1, .work = absl::Seconds(1)});
  EXPECT_EQ((*light)->start(), now);
  // With two clients, each gets half of the device.
  greedy.push_back(*Admit({.client = "greedy", .tokens = 1, .work = absl::Seconds(1)}));
  EXPECT_EQ(greedy.back()->start(), now + absl::Seconds(5));
  greedy.push_back(*Admit({.client = "greedy", .tokens = 1, .work = absl::Seconds(1)}));
  EXPECT_EQ(greedy.back()->start(), now + absl::Seconds(7));
}

TEST_F(AdmissionTest, AClientThatComesBackStartsNow) {
  Permits permits;
  for (int i = 0; i < 5; ++i) permits.push_back(*Admit({.client = "a", .tokens = 1, .work = absl::Seconds(1)}));
  permits.clear();
  EXPECT_EQ((*Admit({.client = "a", .tokens = 1, .work = absl::Seconds(1)}))->start(), clock_.Now());
  // A client does not gain credit for time that it did not use.
  permits.push_back(*Admit({.client = "a", .tokens = 1, .work = absl::Seconds(1)}));
  clock_.Advance(absl::Minutes(1));
  permits.push_back(*Admit({.client = "a", .tokens = 1, .work = absl::Seconds(1)}));
  EXPECT_EQ(permits.back()->start(), clock_.Now());
}

TEST_F(AdmissionTest, CancelledCallsDoNotAdvanceTheClientsClock) {
  const absl::Time now = clock_.Now();
  Permits permits;
  for (int i = 0; i < 6; ++i) permits.push_back(*Admit({.client = "a", .tokens = 1, .work = absl::Seconds(1)}));
  permits.resize(1);
  permits.push_back(*Admit({.client = "a", .tokens = 1, .work = absl::Seconds(1)}));
  EXPECT_EQ(permits.back()->start(), now + absl::Seconds(1));
}

// A refused call does not advance its client's clock, and does not create a client.
TEST_F(AdmissionTest, RefusedCallsDoNotAdvanceTheClientsClock) {
  {
    const Permits full = Fill(10, {.tokens = 100, .work = absl::Milliseconds(100)});
    for (int i = 0; i < 100; ++i) {
      EXPECT_FALSE(Admit({.client = absl::StrCat("b", i), .tokens = 1, .work = absl::Seconds(1)}).ok());
    }
    EXPECT_EQ(admission_.expected_wait(), absl::Seconds(1));
  }
  ExpectNothingIsHeld();
}

// A queue of calls with a second of work each. At every step the oldest call leaves and a new one joins.
class Rolling {
 public:
  Rolling(Admission& admission, ModelBudget& model, FakeClock& clock)
      : admission_(admission), model_(model), clock_(clock) {}

  void Add() {
    MaybePermit permit = admission_.Admit(
        model_, {.client = absl::StrCat("rolling ", ++clients_), .tokens = 1, .work = absl::Seconds(1)});
    ASSERT_TRUE(permit.ok()) << permit.status();
    ASSERT_TRUE((*permit)->Settle(1, absl::Seconds(1), false).ok());
    permits_.push_back(*std::move(permit));
  }
  // The oldest call leaves the queue, a new call joins it, and `took` passes.
  void Step(absl::Duration took) {
    permits_.front()->Release(1, absl::Seconds(1), clock_.Now());
    permits_.erase(permits_.begin());
    Add();
    clock_.Advance(took);
  }

 private:
  Admission& admission_;
  ModelBudget& model_;
  FakeClock& clock_;
  Permits permits_;
  int clients_ = 0;
};

TEST_F(AdmissionTest, TheExpectedWaitFollowsThePaceOfTheQueue) {
  for (const double factor : {2.0, 0.25, 1.0}) {
    Rolling queue(admission_, model_, clock_);
    for (int i = 0; i < 5; ++i) queue.Add();
    for (int i = 0; i < 100; ++i) queue.Step(absl::Seconds(factor));
    EXPECT_GT(admission_.expected_wait(), absl::Seconds(5) * factor * 0.9) << factor;
    EXPECT_LT(admission_.expected_wait(), absl::Seconds(5) * factor * 1.1) << factor;
  }
}

TEST_F(AdmissionTest, ASlowDeviceIsRefusedEarlier) {
  Rolling queue(admission_, model_, clock_);
  for (int i = 0; i < 3; ++i) queue.Add();
  for (int i = 0; i < 40; ++i) queue.Step(absl::Seconds(4));
  // 3 s of work take 12 s. 5 s of work would take 20 s, which is longer than the limit for interactive calls but not
  // for bulk.
  const Permits more = Fill(1, {.tokens = 1, .work = absl::Seconds(2)});
  ExpectRefused(Admit({.client = "b", .tokens = 1}).status(), "QUEUE_WAIT", "queue_wait");
  EXPECT_TRUE(Admit({.client = "b", .priority = Priority::kBulk, .tokens = 1}).ok());
}

// A queue may also become empty because a call is cancelled or fails before it runs. An hour without work must not
// count as slow.
TEST_F(AdmissionTest, IdlenessIsNotASlowPace) {
  for (const bool cancelled_in_queue : {false, true}) {
    MaybePermit first = Admit({.client = "a", .tokens = 1, .work = absl::Seconds(1)});
    MaybePermit cancelled = Admit({.client = "b", .tokens = 1, .work = absl::Seconds(1)});
    for (const MaybePermit* permit : {&first, &cancelled}) {
      ASSERT_TRUE((**permit)->Settle(1, absl::Seconds(1), false).ok());
    }
    (*first)->Release(1, absl::Seconds(1), clock_.Now());
    clock_.Advance(absl::Milliseconds(100));
    if (cancelled_in_queue) (*cancelled)->Release(1, absl::Seconds(1), /*batch=*/std::nullopt);
    first->reset();
    cancelled->reset();
    clock_.Advance(absl::Hours(1));
    const MaybePermit next = Admit({.client = "a", .tokens = 2, .work = absl::Seconds(2)});
    ASSERT_TRUE((*next)->Settle(2, absl::Seconds(2), false).ok());
    (*next)->Release(1, absl::Seconds(1), clock_.Now());
    EXPECT_LT(admission_.expected_wait(), absl::Seconds(2));
    EXPECT_GT(admission_.expected_wait(), absl::Milliseconds(500));
  }
}

// Batches that empty the queue do not say how long their work takes.
TEST_F(AdmissionTest, BatchesThatEmptyTheQueueAreNoFastPace) {
  for (int batch = 0; batch < 1000; ++batch) {
    const Permits permits = Fill(3, {.tokens = 1, .work = absl::Seconds(1)});
    for (const auto& permit : permits) ASSERT_TRUE(permit->Settle(1, absl::Seconds(1), false).ok());
    for (const auto& permit : permits) permit->Release(1, absl::Seconds(1), clock_.Now());
    clock_.Advance(absl::Seconds(3));
  }
  const Permits waiting = Fill(10, {.tokens = 1, .work = absl::Seconds(1)});
  EXPECT_EQ(admission_.expected_wait(), absl::Seconds(10));
}

TEST_F(AdmissionTest, AClockThatIsSetBackDoesNoHarm) {
  Rolling queue(admission_, model_, clock_);
  for (int i = 0; i < 5; ++i) queue.Add();
  queue.Step(-absl::Hours(24));
  for (int i = 0; i < 5; ++i) queue.Step(absl::Seconds(1));
  EXPECT_GT(admission_.expected_wait(), absl::Seconds(2));
  EXPECT_LT(admission_.expected_wait(), absl::Seconds(10));
}

// Oversized sequences run next to the others. The rate at which they leave says nothing about the others.
TEST_F(AdmissionTest, OversizedCallsDoNotCountTowardThePace) {
  const Permits oversized = Fill(5, {.oversized = true, .tokens = 1, .work = absl::Seconds(1)});
  const MaybePermit brief = Admit({.client = "b", .tokens = 1, .work = absl::Seconds(2)});
  for (const std::shared_ptr<Permit>& oversized : oversized) {
    oversized->Release(1, absl::Seconds(1), clock_.Now());
    clock_.Advance(absl::Seconds(30));
  }
  EXPECT_EQ(admission_.expected_wait(), absl::Seconds(2));
}

// Many threads admit, settle, release and drop permits. In the end nothing may be held.
TEST_F(AdmissionTest, IsThreadSafe) {
  std::vector<std::jthread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      std::mt19937 random(t);
      const auto below = [&random](unsigned n) { return static_cast<int>(random() % n); };
      Permits permits;
      for (int i = 0; i < 3000; ++i) {
        const absl::Duration work = absl::Milliseconds(below(100));
        MaybePermit permit = Admit({.client = absl::StrCat(below(5)),
                                    .max_client_tokens = below(2) * 300,
                                    .priority = below(2) == 0 ? Priority::kInteractive : Priority::kBulk,
                                    .oversized = below(4) == 0,
                                    .tokens = below(80),
                                    .work = work});
        admission_.expected_wait();
        if (permit.ok()) {
          if (below(2) == 0) (*permit)->Settle(below(120), work * 2, below(2) == 0, below(8) == 0).IgnoreError();
          permits.push_back(*std::move(permit));
        }
        if (!permits.empty())
          permits[static_cast<size_t>(below(static_cast<unsigned>(permits.size())))]->Release(
              9, work / 3, below(2) == 0 ? std::optional(clock_.Now()) : std::nullopt);
        if (permits.size() > 5) permits.erase(permits.begin() + below(5));
      }
    });
  }
  threads.clear();
  ExpectNothingIsHeld();
}

// The device does a second of work per second, and calls have 100 s of work each. A call is charged for at most 2 s of
// its work at a time, until it ends. If its charge ended after 2 s, new calls would be admitted without limit.
TEST_F(AdmissionTest, LongCallsAreChargedForUntilTheyEnd) {
  struct Call {
    std::shared_ptr<Permit> permit;
    int left = 100;
  };
  constexpr int64_t kLong = 300;
  std::vector<Call> calls;
  size_t turn = 0;
  for (int second = 0; second < 60; ++second) {
    for (int i = 0; i < 3; ++i) {
      MaybePermit permit =
          Admit({.client = absl::StrCat("c", second, ".", i), .tokens = kLong, .work = absl::Seconds(100)});
      if (permit.ok()) calls.push_back({*std::move(permit)});
    }
    Call& running = calls[turn++ % calls.size()];
    --running.left;
    running.permit->Release(kLong / 100, absl::Seconds(1), clock_.Now());
    clock_.Advance(absl::Seconds(1));
  }
  EXPECT_GE(calls.size(), 8u);
  EXPECT_LE(calls.size(), 12u);  // Work that has run releases only its own part.
  for (Call& call : calls) call.permit->Release(kLong, absl::Seconds(100), /*batch=*/std::nullopt);
  EXPECT_EQ(admission_.expected_wait(), absl::ZeroDuration());
}

// The permit holds ten tokens, nine of them charged. Rounded down, a part of four has three charged tokens and one that
// is not. Two such parts would release two uncharged tokens, although only one is held.
TEST_F(AdmissionTest, PartsReleaseNoMoreUnchargedTokensThanAreHeld) {
  const MaybePermit parts = Admit({.client = "parts", .tokens = 10, .work = absl::Seconds(2.2)});
  ASSERT_TRUE(parts.ok());
  (*parts)->Release(4, absl::Seconds(0.88), /*batch=*/std::nullopt);
  (*parts)->Release(4, absl::Seconds(0.88), /*batch=*/std::nullopt);
  // A call of any size is admitted while no uncharged tokens are held.
  const MaybePermit large = Admit({.client = "large", .tokens = 100'000, .work = absl::Seconds(2000)});
  EXPECT_TRUE(large.ok()) << large.status();
}

// The tokens of long calls that are not charged still use memory, so their number is limited. They must not keep short
// calls out.
TEST_F(AdmissionTest, UnchargedTokensAreBounded) {
  Permits long_calls;
  const ResourceRequest each{.tokens = kTokens, .work = absl::Seconds(1000)};
  for (int i = 0; i < 4; ++i) {
    ResourceRequest request = each;
    request.client = absl::StrCat("long ", i);
    long_calls.push_back(*Admit(request));
  }
  ResourceRequest fifth = each;
  fifth.client = "long 5";
  ExpectRefused(Admit(fifth).status(), "QUEUE_TOKENS", "queue_tokens");
  EXPECT_TRUE(Admit({.client = "short", .tokens = 500, .work = absl::Seconds(1)}).ok());
  long_calls.pop_back();
  EXPECT_TRUE(Admit(fifth).ok());
}

TEST_F(AdmissionTest, TokensOfOneModelDoNotCountAgainstAClientsShareOfAnother) {
  ModelBudget other(kTokens);
  const MaybePermit much = Admit({.client = "a", .tokens = 700});
  const Permits others = Fill(1, {.tokens = 1});
  const MaybePermit first = admission_.Admit(other, {.client = "b", .tokens = 850});
  ASSERT_TRUE(much.ok() && first.ok());
  // 150 tokens are free, and "a" has none of this model yet.
  EXPECT_TRUE(admission_.Admit(other, {.client = "a", .tokens = 100}).ok());
}

TEST_F(AdmissionTest, RefusesAtAShareOfTheWait) {
  Admission careful({.max_wait = absl::Seconds(16), .reject_fraction = 0.5}, clock_);
  ModelBudget model(kTokens);
  Permits permits;
  for (int i = 0; i < 9; ++i) {
    permits.push_back(*careful.Admit(model, {.client = absl::StrCat(i), .tokens = 1, .work = absl::Seconds(1)}));
  }
  const absl::Status refused = careful.Admit(model, {.client = "a", .tokens = 1}).status();
  ExpectRefused(refused, "QUEUE_WAIT", "queue_wait");
  EXPECT_THAT(std::string(refused.message()), HasSubstr("about 9s; the limit is 8s"));
}

// Work that is still being tokenized cannot leave the queue. Short calls that pass it in the meantime do not make the
// queue slow.
TEST_F(AdmissionTest, TokenizingDoesNotMakeTheQueueSlow) {
  const MaybePermit tokenizing = Admit({.client = "a", .tokens = 100, .work = absl::Seconds(1)});
  for (int i = 0; i < 50; ++i) {
    const MaybePermit brief = Admit({.client = "b", .tokens = 1, .work = absl::Milliseconds(5)});
    ASSERT_TRUE(brief.ok()) << brief.status();
    ASSERT_TRUE((*brief)->Settle(1, absl::Milliseconds(5), false).ok());
    (*brief)->Release(1, absl::Milliseconds(5), clock_.Now());
    clock_.Advance(absl::Milliseconds(100));
  }
  EXPECT_EQ(admission_.expected_wait(), absl::Seconds(1));
}

// A client whose texts have more tokens than expected must not get more of the device.
TEST_F(AdmissionTest, AClientsClockFollowsTheSettlement) {
  const MaybePermit first = Admit({.client = "a", .tokens = 1, .work = absl::Milliseconds(100)});
  ASSERT_TRUE((*first)->Settle(10, absl::Seconds(1), false).ok());
  const MaybePermit second = Admit({.client = "a", .tokens = 1, .work = absl::Milliseconds(100)});
  EXPECT_EQ((*second)->start(), clock_.Now() + absl::Seconds(1));
}

TEST_F(AdmissionTest, ReleaseAllLeavesNothingHeld) {
  const MaybePermit permit = Admit({.client = "a", .tokens = 100, .work = absl::Seconds(1)});
  (*permit)->ReleaseAll();
  EXPECT_EQ(admission_.expected_wait(), absl::ZeroDuration());
  EXPECT_TRUE(Admit({.client = "b", .tokens = kTokens}).ok());
}

TEST_F(AdmissionTest, AKeysLimitCoversAllTokens) {
  const ResourceRequest long_call{.client = "a", .max_client_tokens = 500, .tokens = 400, .work = absl::Seconds(1000)};
  const MaybePermit first = Admit(long_call);
  ASSERT_TRUE(first.ok());
  ExpectRefused(Admit(long_call).status(), "CLIENT_LIMIT", "client_limit");
}

}  // namespace
}  // namespace longembed
