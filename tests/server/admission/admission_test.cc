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

using MaybePlace = absl::StatusOr<std::shared_ptr<Place>>;
using Places = std::vector<std::shared_ptr<Place>>;

constexpr int64_t kTokens = 1000;

class AdmissionTest : public ::testing::Test {
 protected:
  MaybePlace Admit(const Demand& demand) { return admission_.Admit(model_, demand); }

  // Asks for the same again and again until it is refused; appends the places and returns the refusal.
  absl::Status AdmitUntilRefused(const Demand& demand, Places& places) {
    while (true) {
      MaybePlace place = Admit(demand);
      if (!place.ok()) return place.status();
      places.push_back(*std::move(place));
    }
  }

  // Exactly the whole queue is free, nobody's work is counted and no client is remembered.
  void ExpectNothingIsHeld() {
    EXPECT_EQ(admission_.expected_wait(), absl::ZeroDuration());
    const MaybePlace one = Admit({.client = "p", .tokens = 1, .work = absl::Seconds(1)});
    const MaybePlace two = Admit({.client = "p", .tokens = 1, .work = absl::Seconds(1)});
    ASSERT_TRUE(one.ok() && two.ok());
    EXPECT_EQ((*one)->start(), clock_.Now());
    EXPECT_EQ((*two)->start(), clock_.Now() + absl::Seconds(1));  // Twice as far if there were another client.
    const MaybePlace rest = Admit({.client = "q", .tokens = kTokens - 2});
    ASSERT_TRUE(rest.ok()) << rest.status();
    const MaybePlace refused = Admit({.client = "r", .priority = Priority::kBulk, .giant = true, .tokens = 1});
    EXPECT_THAT(std::string(refused.status().message()), HasSubstr(absl::StrCat("holds ", kTokens, " of")));
    EXPECT_LE(RetryDelay(refused.status()), absl::Seconds(2) * 1.25);  // The probes' work and no more.
  }

  FakeClock clock_;
  Admission admission_{{.max_wait = absl::Seconds(10), .max_bulk_wait = absl::Seconds(60)}, clock_};
  ModelBudget model_{kTokens};
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
  const MaybePlace huge = Admit({.client = "a", .tokens = 50 * kTokens, .work = absl::Hours(1)});
  ASSERT_TRUE(huge.ok());
  ExpectRefused(Admit({.client = "b", .tokens = 1}).status(), "QUEUE_TOKENS", "queue_tokens");
}

TEST_F(AdmissionTest, TokensAreBound) {
  const MaybePlace first = Admit({.client = "a", .tokens = 400}), second = Admit({.client = "b", .tokens = 600});
  ASSERT_TRUE(first.ok() && second.ok());
  const absl::Status refused = Admit({.client = "c", .tokens = 1}).status();
  ExpectRefused(refused, "QUEUE_TOKENS", "queue_tokens");
  EXPECT_THAT(std::string(refused.message()), HasSubstr("1000 of at most 1000 tokens"));
}

TEST_F(AdmissionTest, ModelsHaveTokensOfTheirOwnAndShareTheDevice) {
  ModelBudget other(kTokens);
  const MaybePlace full = Admit({.client = "a", .tokens = kTokens, .work = absl::Seconds(11)});
  const MaybePlace first = admission_.Admit(other, {.client = "b", .tokens = 1});  // Its queue is empty.
  ASSERT_TRUE(first.ok());
  ExpectRefused(admission_.Admit(other, {.client = "c", .tokens = 1}).status(), "QUEUE_WAIT", "queue_wait");
}

TEST_F(AdmissionTest, BulkMayFillHalfOfTheTokens) {
  const MaybePlace one = Admit({.client = "a", .tokens = 1});
  const MaybePlace bulk = Admit({.client = "b", .priority = Priority::kBulk, .tokens = 499});
  ASSERT_TRUE(bulk.ok()) << bulk.status();
  const absl::Status refused = Admit({.client = "c", .priority = Priority::kBulk, .tokens = 1}).status();
  ExpectRefused(refused, "QUEUE_TOKENS", "queue_tokens");
  EXPECT_THAT(std::string(refused.message()), HasSubstr("500 of at most 500 tokens"));
  EXPECT_TRUE(Admit({.client = "c", .tokens = 500}).ok());
}

TEST_F(AdmissionTest, TheExpectedWaitIsBound) {
  const MaybePlace first = Admit({.client = "a", .tokens = 1, .work = absl::Seconds(6)});
  EXPECT_EQ(admission_.expected_wait(), absl::Seconds(6));
  const MaybePlace second = Admit({.client = "b", .tokens = 1, .work = absl::Seconds(5)});
  ASSERT_TRUE(second.ok()) << second.status();  // It waits for 6 s itself.
  const absl::Status refused = Admit({.client = "c", .tokens = 1}).status();
  ExpectRefused(refused, "QUEUE_WAIT", "queue_wait");
  EXPECT_THAT(std::string(refused.message()), HasSubstr("about 11s; the limit is 10s"));
}

TEST_F(AdmissionTest, BulkHasABudgetOfItsOwnAndWaitsForInteractiveWork) {
  const MaybePlace bulk = Admit({.client = "a", .priority = Priority::kBulk, .tokens = 1, .work = absl::Seconds(55)});
  EXPECT_EQ(admission_.expected_wait(), absl::ZeroDuration());  // Interactive calls pass it.
  const MaybePlace interactive = Admit({.client = "b", .tokens = 1, .work = absl::Seconds(8)});
  ASSERT_TRUE(interactive.ok());
  ExpectRefused(Admit({.client = "c", .priority = Priority::kBulk, .tokens = 1}).status(), "QUEUE_WAIT", "queue_wait");
  EXPECT_TRUE(Admit({.client = "c", .tokens = 1}).ok());
}

TEST_F(AdmissionTest, GiantsWorkCountsForGiantsOnly) {
  const MaybePlace giant = Admit({.client = "a", .giant = true, .tokens = 1, .work = absl::Seconds(100)});
  EXPECT_EQ(admission_.expected_wait(), absl::ZeroDuration());
  EXPECT_TRUE(Admit({.client = "b", .tokens = 1, .work = absl::Seconds(1)}).ok());
  ExpectRefused(Admit({.client = "c", .giant = true, .tokens = 1}).status(), "QUEUE_WAIT", "queue_wait");
}

TEST_F(AdmissionTest, AGiantWaitsForOthersToo) {
  const MaybePlace brief = Admit({.client = "a", .tokens = 1, .work = absl::Seconds(11)});
  ExpectRefused(Admit({.client = "b", .giant = true, .tokens = 1}).status(), "QUEUE_WAIT", "queue_wait");
}

TEST_F(AdmissionTest, AGreedyClientGetsFourFifthsOfTheTokens) {
  Places greedy;
  ExpectRefused(AdmitUntilRefused({.client = "greedy", .tokens = 10}, greedy), "CLIENT_SHARE", "client_share");
  EXPECT_GE(greedy.size(), 78u);
  EXPECT_LE(greedy.size(), 81u);
  const MaybePlace other = Admit({.client = "modest", .tokens = 100});
  EXPECT_TRUE(other.ok()) << other.status();
}

TEST_F(AdmissionTest, AGreedyClientGetsFourFifthsOfTheWait) {
  Places greedy;
  ExpectRefused(AdmitUntilRefused({.client = "greedy", .tokens = 1, .work = absl::Milliseconds(100)}, greedy),
                "CLIENT_SHARE", "client_share");
  EXPECT_GE(greedy.size(), 78u);
  EXPECT_LE(greedy.size(), 82u);
  const MaybePlace other = Admit({.client = "modest", .tokens = 1, .work = absl::Milliseconds(100)});
  EXPECT_TRUE(other.ok()) << other.status();
}

// However many are greedy and in whatever order they come, none gets everything and a newcomer finds room.
TEST_F(AdmissionTest, GreedyClientsLeaveRoomForANewcomer) {
  for (const int clients : {2, 3, 5, 8}) {
    std::vector<Places> held(clients);
    bool any = true;
    while (any) {
      any = false;
      for (int c = 0; c < clients; ++c) {
        MaybePlace place = Admit({.client = absl::StrCat("greedy ", c), .tokens = 5, .work = absl::Milliseconds(50)});
        any |= place.ok();
        if (place.ok()) held[c].push_back(*std::move(place));
      }
    }
    size_t all = 0;
    for (const Places& places : held) {
      all += 5 * places.size();
      EXPECT_GE(5 * places.size(), 4 * kTokens / (1 + 4 * clients) - 10) << clients;  // Equal shares.
    }
    // Between 4k / (1 + 4k) of it, and all but a 1 / (1 + 4k)th.
    EXPECT_LE(all, kTokens * 4 * clients / (1 + 4 * clients) + 5 * clients) << clients;
    const MaybePlace newcomer = Admit({.client = "newcomer", .tokens = 5, .work = absl::Milliseconds(50)});
    EXPECT_TRUE(newcomer.ok()) << clients << ": " << newcomer.status();
  }
  ExpectNothingIsHeld();
}

TEST_F(AdmissionTest, AClientsOwnLimitHoldsOverAllModels) {
  ModelBudget other(kTokens);
  Demand demand{.client = "a", .max_client_tokens = 100, .tokens = 60};
  const MaybePlace first = Admit(demand);
  ASSERT_TRUE(first.ok());
  demand.tokens = 41;
  const absl::Status refused = admission_.Admit(other, demand).status();
  ExpectRefused(refused, "CLIENT_LIMIT", "client_limit");
  EXPECT_THAT(std::string(refused.message()), HasSubstr("allows 100 waiting tokens"));
  demand.tokens = 40;
  EXPECT_TRUE(admission_.Admit(other, demand).ok());
  EXPECT_TRUE(Admit({.client = "b", .max_client_tokens = 100, .tokens = 41}).ok());
}

TEST_F(AdmissionTest, SettlingReplacesTheEstimate) {
  const MaybePlace place = Admit({.client = "a", .tokens = 10, .work = absl::Seconds(1)});
  const MaybePlace other = Admit({.client = "b", .tokens = 100, .work = absl::Seconds(1)});
  ASSERT_TRUE((*place)->Settle(900, absl::Seconds(7), false).ok());
  EXPECT_EQ(admission_.expected_wait(), absl::Seconds(8));
  EXPECT_THAT(std::string(Admit({.client = "c", .tokens = 1}).status().message()), HasSubstr("holds 1000 of"));
  ASSERT_TRUE((*place)->Settle(1, absl::Milliseconds(1), false).ok());
  EXPECT_EQ(admission_.expected_wait(), absl::Seconds(1) + absl::Milliseconds(1));
  EXPECT_TRUE(Admit({.client = "c", .tokens = 899}).ok());
}

TEST_F(AdmissionTest, ARefusedSettlementLeavesNothingHeld) {
  {
    const MaybePlace other = Admit({.client = "b", .tokens = 500, .work = absl::Seconds(1)});
    const MaybePlace place = Admit({.client = "a", .tokens = 400, .work = absl::Seconds(1)});
    ExpectRefused((*place)->Settle(501, absl::Seconds(2), false), "QUEUE_TOKENS", "queue_tokens");
    EXPECT_EQ(admission_.expected_wait(), absl::Seconds(1));
    EXPECT_TRUE(Admit({.client = "c", .tokens = 500}).ok());
    (*place)->Release(400, absl::Seconds(1));  // Nothing is left to release.
    EXPECT_EQ(admission_.expected_wait(), absl::Seconds(1));
  }
  ExpectNothingIsHeld();
}

TEST_F(AdmissionTest, WhatMustFitIsSettledAllTheSame) {
  {
    const MaybePlace other = Admit({.client = "b", .tokens = 500});
    const MaybePlace place = Admit({.client = "a", .tokens = 400});
    EXPECT_TRUE((*place)->Settle(5000, absl::Seconds(2), false, /*must_fit=*/true).ok());
    EXPECT_THAT(std::string(Admit({.client = "c", .tokens = 1}).status().message()), HasSubstr("holds 5500 of"));
  }
  ExpectNothingIsHeld();
}

// A call alone in the queue may be as large as it likes, also when that comes out only after tokenising.
TEST_F(AdmissionTest, ACallAloneSettlesToAnySize) {
  const MaybePlace place = Admit({.client = "a", .tokens = 10});
  EXPECT_TRUE((*place)->Settle(10 * kTokens, absl::Hours(1), true).ok());
}

TEST_F(AdmissionTest, SettlingMovesWorkToTheGiantsAndBack) {
  {
    const MaybePlace place = Admit({.client = "a", .tokens = 10, .work = absl::Seconds(3)});
    ASSERT_TRUE((*place)->Settle(10, absl::Seconds(3), /*giant=*/true).ok());
    EXPECT_EQ(admission_.expected_wait(), absl::ZeroDuration());
    ASSERT_TRUE((*place)->Settle(10, absl::Seconds(4), /*giant=*/false).ok());
    EXPECT_EQ(admission_.expected_wait(), absl::Seconds(4));
    ASSERT_TRUE((*place)->Settle(10, absl::Seconds(4), /*giant=*/true).ok());
  }
  ExpectNothingIsHeld();
}

TEST_F(AdmissionTest, IsReleasedByParts) {
  {
    const MaybePlace place = Admit({.client = "a", .tokens = 900, .work = absl::Seconds(9)});
    for (int part = 1; part <= 8; ++part) {
      (*place)->Release(100, absl::Seconds(1));
      EXPECT_EQ(admission_.expected_wait(), absl::Seconds(9 - part));
    }
    const MaybePlace rest = Admit({.client = "b", .tokens = 900});
    EXPECT_TRUE(rest.ok()) << rest.status();
    (*place)->Release(5000, absl::Hours(1));  // Rounding may release a little more than is held.
    EXPECT_EQ(admission_.expected_wait(), absl::ZeroDuration());
    EXPECT_TRUE(Admit({.client = "c", .tokens = 100}).ok());
    EXPECT_FALSE(Admit({.client = "c", .tokens = 101}).ok());
  }
  ExpectNothingIsHeld();
}

TEST_F(AdmissionTest, DestroyedPlacesLeaveNothing) {
  for (const Priority priority : {Priority::kInteractive, Priority::kBulk}) {
    for (const bool giant : {false, true}) {
      {
        Demand demand{.client = "a", .priority = priority, .giant = giant, .tokens = 100, .work = absl::Seconds(1)};
        const MaybePlace whole = Admit(demand), settled = Admit(demand), released = Admit(demand);
        ASSERT_TRUE(whole.ok() && settled.ok() && released.ok());
        ASSERT_TRUE((*settled)->Settle(7, absl::Milliseconds(3), !giant).ok());
        (*released)->Release(33, absl::Milliseconds(333));
      }
      ExpectNothingIsHeld();
    }
  }
}

// Clients that are refused together must not come back together: whatever the wait, hints differ, by a quarter at most.
TEST_F(AdmissionTest, HintsAreScattered) {
  for (const absl::Duration work : {absl::ZeroDuration(), absl::Seconds(8), absl::Hours(1)}) {
    const MaybePlace full = Admit({.client = "a", .tokens = kTokens, .work = work});
    std::set<absl::Duration> hints;
    for (int i = 0; i < 200; ++i) hints.insert(*RetryDelay(Admit({.client = "b", .tokens = 1}).status()));
    const absl::Duration middle = std::clamp(work, absl::Milliseconds(50), absl::Seconds(60));
    EXPECT_GE(*hints.begin(), middle * 0.74) << work;
    EXPECT_LE(*hints.rbegin(), middle * 1.26) << work;
    EXPECT_GT(hints.size(), 50u) << work;
    EXPECT_GT(*hints.rbegin() - *hints.begin(), middle * 0.3) << work;
  }
}

TEST_F(AdmissionTest, ALightClientStartsNowAndAGreedyOneLater) {
  const absl::Time now = clock_.Now();
  Places greedy;
  for (int i = 0; i < 5; ++i) {
    greedy.push_back(*Admit({.client = "greedy", .tokens = 1, .work = absl::Seconds(1)}));
    EXPECT_EQ(greedy.back()->start(), now + absl::Seconds(i));
  }
  const MaybePlace light = Admit({.client = "light", .tokens = 1, .work = absl::Seconds(1)});
  EXPECT_EQ((*light)->start(), now);
  // Now there are two, and each gets half of the device.
  greedy.push_back(*Admit({.client = "greedy", .tokens = 1, .work = absl::Seconds(1)}));
  EXPECT_EQ(greedy.back()->start(), now + absl::Seconds(5));
  greedy.push_back(*Admit({.client = "greedy", .tokens = 1, .work = absl::Seconds(1)}));
  EXPECT_EQ(greedy.back()->start(), now + absl::Seconds(7));
}

TEST_F(AdmissionTest, AClientThatComesBackStartsNow) {
  Places places;
  for (int i = 0; i < 5; ++i) places.push_back(*Admit({.client = "a", .tokens = 1, .work = absl::Seconds(1)}));
  places.clear();
  EXPECT_EQ((*Admit({.client = "a", .tokens = 1, .work = absl::Seconds(1)}))->start(), clock_.Now());
  // Nor does one save up for what it did not use.
  places.push_back(*Admit({.client = "a", .tokens = 1, .work = absl::Seconds(1)}));
  clock_.Advance(absl::Minutes(1));
  places.push_back(*Admit({.client = "a", .tokens = 1, .work = absl::Seconds(1)}));
  EXPECT_EQ(places.back()->start(), clock_.Now());
}

TEST_F(AdmissionTest, CancelledCallsAreNotHeldAgainstAClient) {
  const absl::Time now = clock_.Now();
  Places places;
  for (int i = 0; i < 6; ++i) places.push_back(*Admit({.client = "a", .tokens = 1, .work = absl::Seconds(1)}));
  places.resize(1);
  places.push_back(*Admit({.client = "a", .tokens = 1, .work = absl::Seconds(1)}));
  EXPECT_EQ(places.back()->start(), now + absl::Seconds(1));
}

// A refused call moves no clock and makes no client.
TEST_F(AdmissionTest, RefusedCallsAreNotHeldAgainstAClient) {
  {
    const MaybePlace full = Admit({.client = "a", .tokens = kTokens, .work = absl::Seconds(1)});
    for (int i = 0; i < 100; ++i) {
      EXPECT_FALSE(Admit({.client = absl::StrCat("b", i), .tokens = 1, .work = absl::Seconds(9)}).ok());
    }
    EXPECT_EQ(admission_.expected_wait(), absl::Seconds(1));
  }
  ExpectNothingIsHeld();
}

// Many threads admit, settle, release and drop; in the end nothing is held.
TEST_F(AdmissionTest, IsThreadSafe) {
  std::vector<std::jthread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      std::mt19937 random(t);
      const auto below = [&random](unsigned n) { return static_cast<int>(random() % n); };
      Places places;
      for (int i = 0; i < 3000; ++i) {
        const absl::Duration work = absl::Milliseconds(below(100));
        MaybePlace place = Admit({.client = absl::StrCat(below(5)),
                                  .max_client_tokens = below(2) * 300,
                                  .priority = below(2) == 0 ? Priority::kInteractive : Priority::kBulk,
                                  .giant = below(4) == 0,
                                  .tokens = below(80),
                                  .work = work});
        admission_.expected_wait();
        if (place.ok()) {
          if (below(2) == 0) (*place)->Settle(below(120), work * 2, below(2) == 0, below(8) == 0).IgnoreError();
          places.push_back(*std::move(place));
        }
        if (!places.empty())
          places[static_cast<size_t>(below(static_cast<unsigned>(places.size())))]->Release(9, work / 3);
        if (places.size() > 5) places.erase(places.begin() + below(5));
      }
    });
  }
  threads.clear();
  ExpectNothingIsHeld();
}

}  // namespace
}  // namespace longembed
