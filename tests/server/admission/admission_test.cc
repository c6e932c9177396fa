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

  // So many calls, each of another client.
  Places Fill(int calls, Demand each) {
    Places places;
    for (int i = 0; i < calls; ++i) {
      each.client = absl::StrCat("filler ", ++fillers_);
      MaybePlace place = Admit(each);
      EXPECT_TRUE(place.ok()) << place.status();
      if (place.ok()) places.push_back(*std::move(place));
    }
    return places;
  }

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
    const Places rest = Fill((kTokens - 2) / 2, {.tokens = 2});
    const MaybePlace refused = Admit({.client = "r", .priority = Priority::kBulk, .giant = true, .tokens = 1});
    EXPECT_THAT(std::string(refused.status().message()), HasSubstr(absl::StrCat("holds ", kTokens, " of")));
    EXPECT_LE(RetryDelay(refused.status()), absl::Seconds(2) * 1.25);  // The probes' work and no more.
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
  const MaybePlace huge = Admit({.client = "a", .tokens = 50 * kTokens, .work = absl::Hours(1)});
  EXPECT_TRUE(huge.ok()) << huge.status();
}

TEST_F(AdmissionTest, TokensAreBound) {
  const Places full = Fill(10, {.tokens = 100});
  const absl::Status refused = Admit({.client = "a", .tokens = 1}).status();
  ExpectRefused(refused, "QUEUE_TOKENS", "queue_tokens");
  EXPECT_THAT(std::string(refused.message()), HasSubstr("1000 of at most 1000 tokens"));
}

// It interleaves with others, so it does not shut them out.
TEST_F(AdmissionTest, AHugeCallLeavesRoomForOthers) {
  const MaybePlace huge = Admit({.client = "a", .tokens = 50 * kTokens, .work = absl::Hours(1)});
  const MaybePlace second = Admit({.client = "b", .tokens = 100, .work = absl::Seconds(1)});
  EXPECT_TRUE(second.ok()) << second.status();
}

TEST_F(AdmissionTest, ModelsHaveTokensOfTheirOwnAndShareTheDevice) {
  ModelBudget other(kTokens);
  const Places full = Fill(10, {.tokens = 100, .work = absl::Seconds(1.7)});
  const MaybePlace first = admission_.Admit(other, {.client = "b", .tokens = 1});  // Its queue is empty.
  ASSERT_TRUE(first.ok());
  ExpectRefused(admission_.Admit(other, {.client = "c", .tokens = 1}).status(), "QUEUE_WAIT", "queue_wait");
}

TEST_F(AdmissionTest, BulkMayFillHalfOfTheTokens) {
  const Places interactive = Fill(1, {.tokens = 100});
  const Places bulk = Fill(4, {.priority = Priority::kBulk, .tokens = 100});
  const absl::Status refused = Admit({.client = "a", .priority = Priority::kBulk, .tokens = 1}).status();
  ExpectRefused(refused, "QUEUE_TOKENS", "queue_tokens");
  EXPECT_THAT(std::string(refused.message()), HasSubstr("500 of at most 500 tokens"));
  Fill(5, {.tokens = 100});
}

TEST_F(AdmissionTest, TheExpectedWaitIsBound) {
  const Places first = Fill(9, {.tokens = 1, .work = absl::Seconds(1)});
  EXPECT_EQ(admission_.expected_wait(), absl::Seconds(9));
  const Places more = Fill(4, {.tokens = 1, .work = absl::Seconds(2)});  // The last waits for 15 s itself.
  const absl::Status refused = Admit({.client = "a", .tokens = 1}).status();
  ExpectRefused(refused, "QUEUE_WAIT", "queue_wait");
  EXPECT_THAT(std::string(refused.message()), HasSubstr("about 17s; the limit is 16s"));
}

// In order of arrival, each behind those before it; what would be late is not begun.
TEST_F(AdmissionTest, ACallThatWouldBeLateIsRefused) {
  const Demand call{.client = "a", .tokens = 1, .work = absl::Seconds(1), .deadline = clock_.Now() + absl::Seconds(8)};
  Places places;
  const absl::Status refused = AdmitUntilRefused(call, places);
  ExpectRefused(refused, "DEADLINE_TOO_SHORT", "deadline_too_short");
  EXPECT_EQ(places.size(), 6u);  // Three quarters of the time are promised.
  for (size_t i = 0; i < places.size(); ++i) {
    EXPECT_EQ(places[i]->due(), clock_.Now() + absl::Seconds(static_cast<double>(i + 1)));
  }
  Demand patient = call;
  patient.deadline = clock_.Now() + absl::Seconds(30);
  EXPECT_TRUE(Admit(patient).ok());
}

// It waits for what is due before it, not for all.
TEST_F(AdmissionTest, AShortCallPassesLongOnesWithDeadlines) {
  const absl::Time deadline = clock_.Now() + absl::Seconds(100);
  const Places places = Fill(3, {.tokens = 1, .work = absl::Seconds(5), .deadline = deadline});
  const Demand shorter{
      .client = "short", .tokens = 1, .work = absl::Milliseconds(10), .deadline = clock_.Now() + absl::Seconds(1)};
  EXPECT_TRUE(Admit(shorter).ok());
}

TEST_F(AdmissionTest, TheTimeToTokenizeCountsToo) {
  const Places busy = Fill(1, {.tokens = 1, .work = absl::Seconds(1)});
  Demand call{.client = "a", .tokens = 1, .work = absl::Seconds(1), .deadline = clock_.Now() + absl::Seconds(10)};
  EXPECT_TRUE(Admit(call).ok());
  call.tokenization = absl::Seconds(7);
  ExpectRefused(Admit(call).status(), "DEADLINE_TOO_SHORT", "deadline_too_short");
  call.deadline = absl::InfiniteFuture();
  call.tokenization = absl::Seconds(17);
  ExpectRefused(Admit(call).status(), "QUEUE_WAIT", "queue_wait");
}

// When its tokens have been counted.
TEST_F(AdmissionTest, ACallThatTurnsOutTooLongForItsDeadlineIsRefused) {
  const Places busy = Fill(1, {.tokens = 1, .work = absl::Seconds(1)});
  const Demand call{.client = "a", .tokens = 1, .work = absl::Seconds(1), .deadline = clock_.Now() + absl::Seconds(8)};
  const MaybePlace place = Admit(call), other = Admit(call);
  ASSERT_TRUE(place.ok() && other.ok());
  EXPECT_TRUE((*place)->Settle(1, absl::Seconds(2), /*giant=*/false).ok());
  ExpectRefused((*other)->Settle(1, absl::Seconds(7), /*giant=*/false), "DEADLINE_TOO_SHORT", "deadline_too_short");
}

TEST_F(AdmissionTest, BulkHasABudgetOfItsOwnAndWaitsForInteractiveWork) {
  const Places bulk = Fill(8, {.priority = Priority::kBulk, .tokens = 1, .work = absl::Seconds(9)});
  EXPECT_EQ(admission_.expected_wait(), absl::ZeroDuration());  // Interactive calls pass it.
  const Places interactive = Fill(9, {.tokens = 1, .work = absl::Seconds(1)});
  ExpectRefused(Admit({.client = "c", .priority = Priority::kBulk, .tokens = 1}).status(), "QUEUE_WAIT", "queue_wait");
  EXPECT_TRUE(Admit({.client = "c", .tokens = 1}).ok());
}

TEST_F(AdmissionTest, GiantsWorkCountsForGiantsOnly) {
  const Places giants = Fill(10, {.giant = true, .tokens = 1, .work = absl::Seconds(1.7)});
  EXPECT_EQ(admission_.expected_wait(), absl::Seconds(17));  // Of another giant.
  EXPECT_TRUE(Admit({.client = "b", .tokens = 1, .work = absl::Seconds(1)}).ok());
  ExpectRefused(Admit({.client = "c", .giant = true, .tokens = 1}).status(), "QUEUE_WAIT", "queue_wait");
}

// Giants run one after the other, so a long one is not charged for a part only.
TEST_F(AdmissionTest, AGiantIsChargedForAllOfItsWork) {
  const MaybePlace giant = Admit({.client = "a", .giant = true, .tokens = 1, .work = absl::Minutes(2)});
  EXPECT_EQ(admission_.expected_wait(), absl::Minutes(2));
  ExpectRefused(Admit({.client = "b", .giant = true, .tokens = 1}).status(), "QUEUE_WAIT", "queue_wait");
  EXPECT_TRUE(Admit({.client = "c", .tokens = 1}).ok());
}

TEST_F(AdmissionTest, AGiantWaitsForOthersToo) {
  const Places brief = Fill(10, {.tokens = 1, .work = absl::Seconds(1.7)});
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
  EXPECT_GE(greedy.size(), 126u);  // Of 160.
  EXPECT_LE(greedy.size(), 130u);
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
  const Places others = Fill(8, {.tokens = 100});
  ASSERT_TRUE((*place)->Settle(200, absl::Seconds(2), false).ok());
  EXPECT_EQ(admission_.expected_wait(), absl::Seconds(2));
  EXPECT_THAT(std::string(Admit({.client = "c", .tokens = 1}).status().message()), HasSubstr("holds 1000 of"));
  ASSERT_TRUE((*place)->Settle(1, absl::Milliseconds(1), false).ok());
  EXPECT_EQ(admission_.expected_wait(), absl::Milliseconds(1));
  EXPECT_TRUE(Admit({.client = "c", .tokens = 199}).ok());
}

TEST_F(AdmissionTest, ARefusedSettlementLeavesNothingHeld) {
  {
    const Places others = Fill(8, {.tokens = 100, .work = absl::Milliseconds(125)});
    const MaybePlace place = Admit({.client = "a", .tokens = 100, .work = absl::Seconds(1)});
    ExpectRefused((*place)->Settle(201, absl::Seconds(2), false), "QUEUE_TOKENS", "queue_tokens");
    EXPECT_EQ(admission_.expected_wait(), absl::Seconds(1));
    EXPECT_TRUE(Admit({.client = "c", .tokens = 200}).ok());
    (*place)->Release(100, absl::Seconds(1), /*runs=*/false);  // Nothing is left to release.
    EXPECT_EQ(admission_.expected_wait(), absl::Seconds(1));
  }
  ExpectNothingIsHeld();
}

TEST_F(AdmissionTest, WhatMustFitIsSettledAllTheSame) {
  {
    const Places others = Fill(8, {.tokens = 100});
    const MaybePlace place = Admit({.client = "a", .tokens = 100});
    EXPECT_TRUE((*place)->Settle(201, absl::Seconds(2), false, /*must_fit=*/true).ok());
    EXPECT_THAT(std::string(Admit({.client = "c", .tokens = 1}).status().message()), HasSubstr("holds 1001 of"));
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
    const MaybePlace place = Admit({.client = "a", .tokens = 10, .work = absl::Seconds(1)});
    ASSERT_TRUE((*place)->Settle(10, absl::Minutes(1), /*giant=*/true).ok());
    EXPECT_TRUE(Admit({.client = "b", .tokens = 1}).ok());  // Nothing is before a short one.
    ASSERT_TRUE((*place)->Settle(10, absl::Seconds(2), /*giant=*/false).ok());
    EXPECT_EQ(admission_.expected_wait(), absl::Seconds(2));
    ASSERT_TRUE((*place)->Settle(10, absl::Seconds(2), /*giant=*/true).ok());
  }
  ExpectNothingIsHeld();
}

TEST_F(AdmissionTest, IsReleasedByParts) {
  {
    const MaybePlace place = Admit({.client = "a", .tokens = 90, .work = absl::Milliseconds(900)});
    for (int part = 1; part <= 8; ++part) {
      (*place)->Release(10, absl::Milliseconds(100), /*runs=*/false);
      EXPECT_EQ(admission_.expected_wait(), absl::Milliseconds(900 - 100 * part));
    }
    const Places rest = Fill(99, {.tokens = 10});
    EXPECT_FALSE(Admit({.client = "c", .tokens = 1}).ok());
    (*place)->Release(5000, absl::Hours(1), /*runs=*/false);  // Rounding may release a little more than is held.
    EXPECT_EQ(admission_.expected_wait(), absl::ZeroDuration());
    EXPECT_TRUE(Admit({.client = "c", .tokens = 10}).ok());
    EXPECT_FALSE(Admit({.client = "c", .tokens = 11}).ok());
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
        (*released)->Release(33, absl::Milliseconds(333), /*runs=*/false);
      }
      ExpectNothingIsHeld();
    }
  }
}

// Clients that are refused together must not come back together: whatever the wait, hints differ, by a quarter at most.
TEST_F(AdmissionTest, HintsAreScattered) {
  const auto expect_scattered = [this](int calls, const Demand& each, absl::Duration middle) {
    const Places full = Fill(calls, each);
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
    const Places full = Fill(10, {.tokens = 100, .work = absl::Milliseconds(100)});
    for (int i = 0; i < 100; ++i) {
      EXPECT_FALSE(Admit({.client = absl::StrCat("b", i), .tokens = 1, .work = absl::Seconds(1)}).ok());
    }
    EXPECT_EQ(admission_.expected_wait(), absl::Seconds(1));
  }
  ExpectNothingIsHeld();
}

// Calls of a second's work each, of which the oldest runs again and again.
class Rolling {
 public:
  Rolling(Admission& admission, ModelBudget& model, FakeClock& clock)
      : admission_(admission), model_(model), clock_(clock) {}

  void Add() {
    MaybePlace place = admission_.Admit(
        model_, {.client = absl::StrCat("rolling ", ++clients_), .tokens = 1, .work = absl::Seconds(1)});
    ASSERT_TRUE(place.ok()) << place.status();
    ASSERT_TRUE((*place)->Settle(1, absl::Seconds(1), false).ok());
    places_.push_back(*std::move(place));
  }
  // One leaves the queue, one joins it, and `took` passes.
  void Step(absl::Duration took) {
    places_.front()->Release(1, absl::Seconds(1), /*runs=*/true);
    places_.erase(places_.begin());
    Add();
    clock_.Advance(took);
  }

 private:
  Admission& admission_;
  ModelBudget& model_;
  FakeClock& clock_;
  Places places_;
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
  // 3 s of work, which take 12 s; and then 5 s, which take 20: more than interactive calls wait, less than bulk does.
  const Places more = Fill(1, {.tokens = 1, .work = absl::Seconds(2)});
  ExpectRefused(Admit({.client = "b", .tokens = 1}).status(), "QUEUE_WAIT", "queue_wait");
  EXPECT_TRUE(Admit({.client = "b", .priority = Priority::kBulk, .tokens = 1}).ok());
}

// What ends a queue may also be a call that is cancelled or fails before it runs. An hour without work is no slow hour.
TEST_F(AdmissionTest, IdlenessIsNotASlowPace) {
  for (const bool cancelled_in_queue : {false, true}) {
    MaybePlace first = Admit({.client = "a", .tokens = 1, .work = absl::Seconds(1)});
    MaybePlace cancelled = Admit({.client = "b", .tokens = 1, .work = absl::Seconds(1)});
    for (const MaybePlace* place : {&first, &cancelled}) {
      ASSERT_TRUE((**place)->Settle(1, absl::Seconds(1), false).ok());
    }
    (*first)->Release(1, absl::Seconds(1), /*runs=*/true);
    clock_.Advance(absl::Milliseconds(100));
    if (cancelled_in_queue) (*cancelled)->Release(1, absl::Seconds(1), /*runs=*/false);
    first->reset();
    cancelled->reset();
    clock_.Advance(absl::Hours(1));
    const MaybePlace next = Admit({.client = "a", .tokens = 2, .work = absl::Seconds(2)});
    ASSERT_TRUE((*next)->Settle(2, absl::Seconds(2), false).ok());
    (*next)->Release(1, absl::Seconds(1), /*runs=*/true);
    EXPECT_LT(admission_.expected_wait(), absl::Seconds(2));
    EXPECT_GT(admission_.expected_wait(), absl::Milliseconds(500));
  }
}

TEST_F(AdmissionTest, AClockThatIsSetBackDoesNoHarm) {
  Rolling queue(admission_, model_, clock_);
  for (int i = 0; i < 5; ++i) queue.Add();
  queue.Step(-absl::Hours(24));
  for (int i = 0; i < 5; ++i) queue.Step(absl::Seconds(1));
  EXPECT_GT(admission_.expected_wait(), absl::Seconds(2));
  EXPECT_LT(admission_.expected_wait(), absl::Seconds(10));
}

// Giants run beside the others: how fast they leave says nothing about those.
TEST_F(AdmissionTest, GiantsHaveNoPartInThePace) {
  const Places giants = Fill(5, {.giant = true, .tokens = 1, .work = absl::Seconds(1)});
  const MaybePlace brief = Admit({.client = "b", .tokens = 1, .work = absl::Seconds(2)});
  for (const std::shared_ptr<Place>& giant : giants) {
    giant->Release(1, absl::Seconds(1), /*runs=*/true);
    clock_.Advance(absl::Seconds(30));
  }
  EXPECT_EQ(admission_.expected_wait(), absl::Seconds(2));
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
          places[static_cast<size_t>(below(static_cast<unsigned>(places.size())))]->Release(9, work / 3, below(2) == 0);
        if (places.size() > 5) places.erase(places.begin() + below(5));
      }
    });
  }
  threads.clear();
  ExpectNothingIsHeld();
}

// A device that does a second of work a second, and calls of 100 s each: were a call forgotten once it has run what it
// is charged for, new ones would come for ever.
TEST_F(AdmissionTest, LongCallsAreChargedForUntilTheyEnd) {
  struct Call {
    std::shared_ptr<Place> place;
    int left = 100;
  };
  constexpr int64_t kLong = 300;
  std::vector<Call> calls;
  size_t turn = 0;
  for (int second = 0; second < 60; ++second) {
    for (int i = 0; i < 3; ++i) {
      MaybePlace place =
          Admit({.client = absl::StrCat("c", second, ".", i), .tokens = kLong, .work = absl::Seconds(100)});
      if (place.ok()) calls.push_back({*std::move(place)});
    }
    Call& running = calls[turn++ % calls.size()];
    --running.left;
    running.place->Release(kLong / 100, absl::Seconds(1), /*runs=*/true);
    clock_.Advance(absl::Seconds(1));
  }
  EXPECT_GE(calls.size(), 8u);
  EXPECT_LE(calls.size(), 12u);  // What has run makes room for no more than its part.
  for (Call& call : calls) call.place->Release(kLong, absl::Seconds(100), /*runs=*/false);
  EXPECT_EQ(admission_.expected_wait(), absl::ZeroDuration());
}

// What long calls are not charged for is memory all the same. Short ones are not kept out by it.
TEST_F(AdmissionTest, UnchargedTokensAreBound) {
  Places long_calls;
  const Demand each{.tokens = kTokens, .work = absl::Seconds(1000)};
  for (int i = 0; i < 4; ++i) {
    Demand demand = each;
    demand.client = absl::StrCat("long ", i);
    long_calls.push_back(*Admit(demand));
  }
  Demand fifth = each;
  fifth.client = "long 5";
  ExpectRefused(Admit(fifth).status(), "QUEUE_TOKENS", "queue_tokens");
  EXPECT_TRUE(Admit({.client = "short", .tokens = 500, .work = absl::Seconds(1)}).ok());
  long_calls.pop_back();
  EXPECT_TRUE(Admit(fifth).ok());
}

TEST_F(AdmissionTest, ModelsDoNotCountAgainstAClientsShareOfEachOther) {
  ModelBudget other(kTokens);
  const MaybePlace much = Admit({.client = "a", .tokens = 700});
  const Places others = Fill(1, {.tokens = 1});
  const MaybePlace first = admission_.Admit(other, {.client = "b", .tokens = 850});
  ASSERT_TRUE(much.ok() && first.ok());
  // 150 are free, of which a has none yet.
  EXPECT_TRUE(admission_.Admit(other, {.client = "a", .tokens = 100}).ok());
}

TEST_F(AdmissionTest, RefusesAtAShareOfTheWait) {
  Admission careful({.max_wait = absl::Seconds(16), .refuse_at = 0.5}, clock_);
  ModelBudget model(kTokens);
  Places places;
  for (int i = 0; i < 9; ++i) {
    places.push_back(*careful.Admit(model, {.client = absl::StrCat(i), .tokens = 1, .work = absl::Seconds(1)}));
  }
  const absl::Status refused = careful.Admit(model, {.client = "a", .tokens = 1}).status();
  ExpectRefused(refused, "QUEUE_WAIT", "queue_wait");
  EXPECT_THAT(std::string(refused.message()), HasSubstr("about 9s; the limit is 16s"));
}

// Work that is still being tokenised cannot leave the queue: short calls that pass it meanwhile are no slow queue.
TEST_F(AdmissionTest, WhatIsBeingTokenisedIsNotASlowQueue) {
  const MaybePlace tokenising = Admit({.client = "a", .tokens = 100, .work = absl::Seconds(1)});
  for (int i = 0; i < 50; ++i) {
    const MaybePlace brief = Admit({.client = "b", .tokens = 1, .work = absl::Milliseconds(5)});
    ASSERT_TRUE(brief.ok()) << brief.status();
    ASSERT_TRUE((*brief)->Settle(1, absl::Milliseconds(5), false).ok());
    (*brief)->Release(1, absl::Milliseconds(5), /*runs=*/true);
    clock_.Advance(absl::Milliseconds(100));
  }
  EXPECT_EQ(admission_.expected_wait(), absl::Seconds(1));
}

// A client whose texts make more tokens than was thought gets no more of the device for that.
TEST_F(AdmissionTest, AClientsClockFollowsTheSettlement) {
  const MaybePlace first = Admit({.client = "a", .tokens = 1, .work = absl::Milliseconds(100)});
  ASSERT_TRUE((*first)->Settle(10, absl::Seconds(1), false).ok());
  const MaybePlace second = Admit({.client = "a", .tokens = 1, .work = absl::Milliseconds(100)});
  EXPECT_EQ((*second)->start(), clock_.Now() + absl::Seconds(1));
}

TEST_F(AdmissionTest, ReleaseAllLeavesNothingHeld) {
  const MaybePlace place = Admit({.client = "a", .tokens = 100, .work = absl::Seconds(1)});
  (*place)->ReleaseAll();
  EXPECT_EQ(admission_.expected_wait(), absl::ZeroDuration());
  EXPECT_TRUE(Admit({.client = "b", .tokens = kTokens}).ok());
}

TEST_F(AdmissionTest, AKeysLimitIsOfAllTokens) {
  const Demand long_call{.client = "a", .max_client_tokens = 500, .tokens = 400, .work = absl::Seconds(1000)};
  const MaybePlace first = Admit(long_call);
  ASSERT_TRUE(first.ok());
  ExpectRefused(Admit(long_call).status(), "CLIENT_LIMIT", "client_limit");
}

}  // namespace
}  // namespace longembed
