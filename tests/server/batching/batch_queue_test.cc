#include "server/batching/batch_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "tests/testing/fake_encoder.h"

namespace longembed {
namespace {

using ::testing::ElementsAre;

const absl::Time kStart = absl::UnixEpoch() + absl::Hours(1);

std::shared_ptr<Job> MakeJob(int32_t token, const std::vector<int>& sizes, const JobOptions& options = {}) {
  std::vector<Sequence> sequences;
  for (const int size : sizes) sequences.push_back(MakeSequence(token, size));
  return std::make_shared<Job>(std::move(sequences), options, [](absl::StatusOr<JobResult>) {});
}

// Returns the batch, with each sequence as the number token * 1000 + size.
std::vector<int> Take(BatchQueue& queue, const BatchLimits& limits, absl::Time now = kStart) {
  std::vector<int> taken;
  for (const BatchItem& item : queue.TakeBatch(limits, now)) {
    const Sequence& sequence = item.job->sequences()[item.sequence];
    taken.push_back(sequence.tokens[0] * 1000 + sequence.size());
  }
  return taken;
}

TEST(BatchQueueTest, FillsTheBudgetAcrossJobsOldestFirst) {
  BatchQueue queue;
  queue.Push(MakeJob(1, {10, 20}), kStart);
  queue.Push(MakeJob(2, {50}), kStart + absl::Seconds(1));
  queue.Push(MakeJob(3, {30}), kStart + absl::Seconds(2));
  EXPECT_EQ(queue.tokens(), 110);
  // 10 + 20 + 30 fit into 60. The sequence of 50 does not fit. It is skipped, and the batch does not wait for it.
  EXPECT_THAT(Take(queue, {.max_tokens = 60}), ElementsAre(1010, 1020, 3030));
  EXPECT_THAT(Take(queue, {.max_tokens = 60}), ElementsAre(2050));
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(queue.tokens(), 0);
}

TEST(BatchQueueTest, ASequenceBeyondTheBudgetGoesAlone) {
  BatchQueue queue;
  queue.Push(MakeJob(1, {5000}), kStart);
  queue.Push(MakeJob(2, {1}), kStart);
  EXPECT_THAT(Take(queue, {.max_tokens = 4096}), ElementsAre(1000 + 5000));
  EXPECT_THAT(Take(queue, {.max_tokens = 4096}), ElementsAre(2001));
}

TEST(BatchQueueTest, AJobContinuesInTheNextBatch) {
  BatchQueue queue;
  queue.Push(MakeJob(1, {40, 40, 40}), kStart);
  EXPECT_THAT(Take(queue, {.max_tokens = 100}), ElementsAre(1040, 1040));
  EXPECT_EQ(queue.tokens(), 40);
  EXPECT_THAT(Take(queue, {.max_tokens = 100}), ElementsAre(1040));
}

JobOptions AdmittedWithDeadline(absl::Duration due, absl::Duration deadline) {
  return {.deadline = kStart + deadline, .due = kStart + due, .work = due};
}

// Jobs under a deadline do not interleave, because interleaved jobs would all be late.
TEST(BatchQueueTest, JobsUnderADeadlineRunOneAfterTheOther) {
  BatchQueue queue;
  queue.Push(MakeJob(1, {50, 50}, AdmittedWithDeadline(absl::Seconds(1), absl::Seconds(9))), kStart);
  queue.Push(MakeJob(2, {50, 50}, AdmittedWithDeadline(absl::Seconds(2), absl::Seconds(9))), kStart);
  EXPECT_THAT(Take(queue, {.max_tokens = 50}), ElementsAre(1050));
  queue.Push(MakeJob(3, {50}, AdmittedWithDeadline(absl::Milliseconds(500), absl::Seconds(9))),
             kStart);  // It is shorter, and due first.
  EXPECT_THAT(Take(queue, {.max_tokens = 50}), ElementsAre(3050));
  EXPECT_THAT(Take(queue, {.max_tokens = 50}), ElementsAre(1050));
  EXPECT_THAT(Take(queue, {.max_tokens = 50}), ElementsAre(2050));
}

TEST(BatchQueueTest, JobsThatCannotMeetTheirDeadlineAreNotStarted) {
  BatchQueue queue;
  queue.Push(MakeJob(1, {50, 50}, AdmittedWithDeadline(absl::Seconds(1), absl::Seconds(2))), kStart);
  queue.Push(MakeJob(2, {50}, AdmittedWithDeadline(absl::Seconds(2), absl::Seconds(2))), kStart);
  const absl::Duration time_per_cost = absl::Milliseconds(10);  // A job of 100 tokens takes a second.
  EXPECT_TRUE(queue.TakeInfeasible(kStart + absl::Seconds(1), time_per_cost).empty());
  const auto infeasible = queue.TakeInfeasible(kStart + absl::Seconds(1.2), time_per_cost);
  ASSERT_EQ(infeasible.size(), 1u);
  EXPECT_EQ(infeasible[0]->tokens(), 100);
  // A single remaining job is never dropped, because running it shows how fast the device is.
  EXPECT_TRUE(queue.TakeInfeasible(kStart + absl::Seconds(1.9), time_per_cost).empty());
  EXPECT_THAT(Take(queue, {.max_tokens = 50}), ElementsAre(2050));
}

TEST(BatchQueueTest, StartedJobsContinue) {
  BatchQueue queue;
  queue.Push(MakeJob(1, {50, 50}, AdmittedWithDeadline(absl::Seconds(1), absl::Seconds(2))), kStart);
  queue.Push(MakeJob(2, {50}, AdmittedWithDeadline(absl::Seconds(2), absl::Seconds(2))), kStart);
  EXPECT_THAT(Take(queue, {.max_tokens = 50}), ElementsAre(1050));
  EXPECT_TRUE(queue.TakeInfeasible(kStart + absl::Seconds(1.9), absl::Milliseconds(10)).empty());
}

TEST(BatchQueueTest, LimitsSequences) {
  BatchQueue queue;
  queue.Push(MakeJob(1, {1, 1, 1}), kStart);
  EXPECT_THAT(Take(queue, {.max_tokens = 100, .max_sequences = 2}), ElementsAre(1001, 1001));
}

TEST(BatchQueueTest, UrgencyIsPriorityThenDeadlineThenAge) {
  BatchQueue queue;
  queue.Push(MakeJob(1, {1}, {.priority = Priority::kBulk, .deadline = kStart + absl::Seconds(1)}), kStart);
  queue.Push(MakeJob(2, {1}), kStart);  // Due after kMaxDeadlineSlack.
  queue.Push(MakeJob(3, {1}, {.deadline = kStart + absl::Seconds(1.5)}), kStart);
  queue.Push(MakeJob(4, {1}, {.deadline = kStart + absl::Seconds(1)}), kStart);
  queue.Push(MakeJob(5, {1}, {.deadline = kStart + absl::Hours(1)}), kStart + absl::Seconds(1));
  EXPECT_THAT(Take(queue, {.max_tokens = 100}), ElementsAre(4001, 3001, 2001, 5001, 1001));
}

TEST(BatchQueueTest, RemoveFreesTheQueueAtOnce) {
  BatchQueue queue;
  const auto first = MakeJob(1, {40, 40});
  const auto second = MakeJob(2, {7});
  queue.Push(first, kStart);
  queue.Push(second, kStart + absl::Seconds(1));
  EXPECT_THAT(Take(queue, {.max_tokens = 40}), ElementsAre(1040));
  EXPECT_EQ(queue.oldest(), kStart);
  EXPECT_TRUE(queue.Remove(*first));
  EXPECT_FALSE(queue.Remove(*first));
  EXPECT_EQ(queue.tokens(), 7);
  EXPECT_EQ(queue.jobs(), 1u);
  EXPECT_EQ(queue.oldest(), kStart + absl::Seconds(1));
}

TEST(BatchQueueTest, TakesExpiredOnly) {
  BatchQueue queue;
  const auto late = MakeJob(1, {1}, {.deadline = kStart + absl::Seconds(1)});
  const auto late_bulk = MakeJob(2, {1}, {.priority = Priority::kBulk, .deadline = kStart + absl::Seconds(2)});
  queue.Push(late, kStart);
  queue.Push(late_bulk, kStart);
  queue.Push(MakeJob(3, {1}, {.deadline = kStart + absl::Minutes(1)}), kStart);
  queue.Push(MakeJob(4, {1}), kStart);
  EXPECT_TRUE(queue.TakeExpired(kStart).empty());
  EXPECT_THAT(queue.TakeExpired(kStart + absl::Seconds(30)), ElementsAre(late, late_bulk));
  EXPECT_EQ(queue.jobs(), 2u);
  EXPECT_THAT(Take(queue, {}), ElementsAre(3001, 4001));
}

// Every sequence must leave the queue exactly once, for any input and any size of batches.
TEST(BatchQueueTest, NothingIsLostOrDoubled) {
  std::mt19937 random(7);
  for (int round = 0; round < 50; ++round) {
    BatchQueue queue;
    std::map<int32_t, int> expected, taken;
    const BatchLimits limits{.max_tokens = std::uniform_int_distribution<int>(1, 300)(random), .max_sequences = 9};
    for (int32_t token = 1; token <= 60; ++token) {
      std::vector<int> sizes(std::uniform_int_distribution<int>(1, 6)(random));
      for (int& size : sizes) size = std::uniform_int_distribution<int>(1, 200)(random);
      expected[token] = static_cast<int>(sizes.size());
      queue.Push(MakeJob(token, sizes, {.priority = random() % 2 ? Priority::kBulk : Priority::kInteractive}), kStart);
    }
    while (!queue.empty()) {
      int64_t tokens = 0;
      const Batch batch = queue.TakeBatch(limits, kStart);
      ASSERT_FALSE(batch.empty());
      for (const BatchItem& item : batch) {
        tokens += item.job->sequences()[item.sequence].size();
        ++taken[item.job->sequences()[0].tokens[0]];
      }
      EXPECT_TRUE(batch.size() == 1 || tokens <= limits.max_tokens);
      EXPECT_LE(batch.size(), limits.max_sequences);
    }
    EXPECT_EQ(taken, expected);
    EXPECT_EQ(queue.tokens(), 0);
  }
}

// Counts what a job released.
class CountingPermit final : public QueuePermit {
 public:
  void Release(int64_t tokens, absl::Duration work, std::optional<absl::Time> batch) override {
    EXPECT_GT(tokens, 0);
    released += tokens;
    if (batch.has_value()) ran += tokens;
    released_work += work;
  }

  int64_t released = 0, ran = 0;
  absl::Duration released_work;
};

TEST(BatchQueueTest, AJobIsDueFromItsStart) {
  BatchQueue queue;
  queue.Push(MakeJob(1, {1}, {.start = kStart + absl::Seconds(30)}), kStart);
  queue.Push(MakeJob(2, {1}, {.start = kStart + absl::Seconds(20)}), kStart);
  queue.Push(MakeJob(3, {1}), kStart + absl::Seconds(19));
  queue.Push(MakeJob(4, {1}), kStart + absl::Seconds(21));
  // It is due as long after its start as its deadline is after its arrival.
  queue.Push(MakeJob(5, {1}, {.deadline = kStart + absl::Seconds(22), .start = kStart + absl::Seconds(27)}),
             kStart + absl::Seconds(21));
  // A start in the past counts as the time of arrival.
  queue.Push(MakeJob(6, {1}, {.start = kStart}), kStart + absl::Seconds(23));
  EXPECT_THAT(Take(queue, {.max_tokens = 100}), ElementsAre(3001, 2001, 4001, 6001, 5001, 1001));
}

// A long job that had the device to itself for a long time must not wait equally long when other jobs arrive.
TEST(BatchQueueTest, TimeWithoutCompetitionDoesNotCount) {
  BatchQueue queue;
  const BatchLimits one{.max_tokens = 10};
  queue.Push(MakeJob(1, std::vector<int>(100, 10), {.work = absl::Seconds(100)}), kStart);
  absl::Time now = kStart;
  for (int second = 0; second < 50; ++second, now += absl::Seconds(1)) Take(queue, one, now);
  int ran = 0;
  for (int second = 0; second < 40; ++second, now += absl::Seconds(1)) {
    queue.Push(MakeJob(2, {10}), now);  // There is one such job per second, as many as the device can run.
    ran += Take(queue, one, now).front() == 1010 ? 1 : 0;
  }
  EXPECT_GE(ran, 6);  // About a fourth of the time, or slightly less.
  EXPECT_LE(ran, 12);
}

// Bulk jobs that have run in part must not reduce the share of an interactive job.
TEST(BatchQueueTest, JobsShareWithThoseOfTheirPriority) {
  BatchQueue queue;
  const BatchLimits one{.max_tokens = 10};
  for (int32_t token = 1; token <= 10; ++token) {
    queue.Push(MakeJob(token, {10, 10}, {.priority = Priority::kBulk, .work = absl::Seconds(2)}), kStart);
    Take(queue, one);
  }
  queue.Push(MakeJob(11, {10, 10}, {.work = absl::Seconds(2)}), kStart);
  EXPECT_THAT(Take(queue, one), ElementsAre(11010));
  EXPECT_EQ(queue.NextUrgency(true).second, kStart + BatchQueue::kMaxDeadlineSlack + absl::Seconds(4));
}

TEST(BatchQueueTest, WithTheSameStartTheOldestIsFirst) {
  BatchQueue queue;
  const absl::Time start = kStart + absl::Minutes(1);
  for (const int token : {3, 1, 2}) queue.Push(MakeJob(token, {1}, {.start = start}), kStart);
  EXPECT_THAT(Take(queue, {.max_tokens = 100}), ElementsAre(3001, 1001, 2001));
}

TEST(BatchQueueTest, WindowsOfALongJobInterleaveWithLaterJobs) {
  BatchQueue queue;
  const BatchLimits one{.max_tokens = 10};
  queue.Push(MakeJob(1, {10, 10, 10}, {.work = absl::Seconds(3)}), kStart);
  EXPECT_THAT(Take(queue, one), ElementsAre(1010));  // Now due 4 s later.
  queue.Push(MakeJob(2, {10}), kStart + absl::Seconds(3));
  queue.Push(MakeJob(3, {10}), kStart + absl::Seconds(5));
  EXPECT_EQ(queue.NextUrgency(true).second, kStart + absl::Seconds(3) + BatchQueue::kMaxDeadlineSlack);
  const absl::Time later = kStart + absl::Seconds(5);
  EXPECT_THAT(Take(queue, one, later), ElementsAre(2010));
  EXPECT_THAT(Take(queue, one, later), ElementsAre(1010));
  EXPECT_THAT(Take(queue, one, later), ElementsAre(3010));
  EXPECT_THAT(Take(queue, one), ElementsAre(1010));
  EXPECT_TRUE(queue.empty());
}

// Otherwise, a client with several texts per call would get less than a client with one text per call.
TEST(BatchQueueTest, AJobOfOneBatchKeepsItsPlaceBeforeLaterJobs) {
  BatchQueue queue;
  const BatchLimits two{.max_tokens = 20};
  queue.Push(MakeJob(1, {10}), kStart);
  queue.Push(MakeJob(2, {10, 10}, {.work = absl::Hours(1)}), kStart);
  EXPECT_THAT(Take(queue, two), ElementsAre(1010, 2010));
  queue.Push(MakeJob(3, {10, 10}), kStart + absl::Milliseconds(1));
  EXPECT_THAT(Take(queue, two), ElementsAre(2010, 3010));
}

// While other jobs wait all the time, a long job must get a fourth of what they get.
TEST(BatchQueueTest, ALongJobGetsAShareOfABusyDevice) {
  BatchQueue queue;
  queue.Push(MakeJob(1, std::vector<int>(100, 10), {.work = absl::Seconds(100)}), kStart);
  int long_ran = 0;
  for (int second = 0; second < 100; ++second) {
    queue.Push(MakeJob(2, {10}, {.work = absl::Seconds(1)}), kStart + absl::Seconds(second));
    long_ran += Take(queue, {.max_tokens = 10}, kStart + absl::Seconds(second)).front() == 1010 ? 1 : 0;
  }
  EXPECT_GE(long_ran, 18);
  EXPECT_LE(long_ran, 22);
}

// All long jobs together must not get more than a single one would.
TEST(BatchQueueTest, LongJobsTogetherGetTheShareOfOne) {
  BatchQueue queue;
  for (int job = 0; job < 6; ++job) {
    queue.Push(MakeJob(1, std::vector<int>(100, 10), {.work = absl::Seconds(100)}), kStart);
  }
  int long_ran = 0;
  for (int second = 0; second < 200; ++second) {
    queue.Push(MakeJob(2, {10}, {.work = absl::Seconds(1)}), kStart + absl::Seconds(second));
    long_ran += Take(queue, {.max_tokens = 10}, kStart + absl::Seconds(second)).front() == 1010 ? 1 : 0;
  }
  EXPECT_GE(long_ran, 30);
  EXPECT_LE(long_ran, 60);
}

TEST(BatchQueueTest, BulkRunsAfterInteractiveHoweverLongItHasWaited) {
  BatchQueue queue;
  queue.Push(MakeJob(1, {10}, {.priority = Priority::kBulk}), kStart);
  queue.Push(MakeJob(2, {10, 10, 10}, {.start = kStart + absl::Hours(2), .work = absl::Hours(1)}), kStart);
  for (int i = 0; i < 3; ++i) EXPECT_THAT(Take(queue, {.max_tokens = 10}), ElementsAre(2010));
  EXPECT_THAT(Take(queue, {.max_tokens = 10}), ElementsAre(1010));
}

// A job whose position in the order has changed must still expire and be removable.
TEST(BatchQueueTest, AMovedJobExpiresAndIsRemoved) {
  BatchQueue queue;
  const JobOptions options{.deadline = kStart + absl::Seconds(5), .work = absl::Seconds(9)};
  const auto late = MakeJob(1, {10, 10, 10}, options), gone = MakeJob(2, {10, 10, 10}, options);
  queue.Push(late, kStart);
  queue.Push(gone, kStart);
  for (int i = 0; i < 4; ++i) {
    const absl::Time now = kStart + i * absl::Seconds(3);
    EXPECT_THAT(Take(queue, {.max_tokens = 10}, now), ElementsAre(i % 2 == 0 ? 1010 : 2010));
  }
  EXPECT_TRUE(queue.Remove(*gone));
  EXPECT_FALSE(queue.Remove(*gone));
  EXPECT_THAT(queue.TakeExpired(kStart + absl::Seconds(5)), ElementsAre(late));
  EXPECT_FALSE(queue.Remove(*late));
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(queue.tokens(), 0);
}

TEST(BatchQueueTest, PermitsAreReleasedAsSequencesAreTaken) {
  BatchQueue queue;
  const auto permit = std::make_shared<CountingPermit>();
  const auto job = MakeJob(1, {10, 30, 60}, {.work = absl::Seconds(10), .permit = permit});
  queue.Push(job, kStart);
  EXPECT_EQ(permit->released, 0);
  Take(queue, {.max_tokens = 40});
  EXPECT_EQ(permit->released, 40);
  EXPECT_EQ(permit->ran, 40);
  EXPECT_EQ(permit->released_work, absl::Seconds(4));
  EXPECT_TRUE(queue.Remove(*job));
  EXPECT_EQ(permit->released, 100);
  EXPECT_EQ(permit->ran, 40);  // The rest was removed without running.
  EXPECT_EQ(permit->released_work, absl::Seconds(10));
  queue.Remove(*job);
  EXPECT_EQ(permit->released, 100);
}

// Whatever happens to a job, each sequence must be released exactly once. Within a batch, the sequences of a job must
// be adjacent.
TEST(BatchQueueTest, EverySequenceIsReleasedOnce) {
  std::mt19937 random(11);
  const auto below = [&](int n) { return static_cast<int>(random() % static_cast<uint32_t>(n)); };
  BatchQueue queue({.attention = 0.01, .oversized = 1000});
  std::vector<std::pair<std::shared_ptr<Job>, std::shared_ptr<CountingPermit>>> jobs;
  absl::Time now = kStart;
  for (int step = 0; step < 3000; ++step, now += absl::Milliseconds(below(100))) {
    if (below(2) == 0) {
      std::vector<int> sizes(static_cast<size_t>(1 + below(6)));
      for (int& size : sizes) size = below(8) == 0 ? 300 : 1 + below(60);
      const auto permit = std::make_shared<CountingPermit>();
      JobOptions options{.start = now + absl::Milliseconds(below(3000)), .permit = permit};
      if (below(3) != 0) options.work = absl::Milliseconds(below(500));
      if (below(3) == 0) options.deadline = now + absl::Milliseconds(below(2000));
      if (below(4) == 0) options.priority = Priority::kBulk;
      jobs.emplace_back(MakeJob(1, sizes, options), permit);
      queue.Push(jobs.back().first, now);
    } else if (below(3) != 0) {
      std::vector<const Job*> seen;
      for (const BatchItem& item :
           queue.TakeBatch({.max_tokens = 1 + below(300), .oversized = below(2) == 0}, kStart)) {
        if (!seen.empty() && seen.back() == item.job.get()) continue;
        ASSERT_EQ(std::ranges::find(seen, item.job.get()), seen.end());
        seen.push_back(item.job.get());
      }
    } else {
      if (!jobs.empty() && queue.Remove(*jobs[static_cast<size_t>(below(static_cast<int>(jobs.size())))].first))
        continue;
      queue.TakeExpired(now);
    }
  }
  for (const auto& [job, permit] : jobs) {
    queue.Remove(*job);
    EXPECT_EQ(permit->released, job->tokens());
    EXPECT_LE(absl::AbsDuration(permit->released_work - job->options().work), absl::Microseconds(1));
  }
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(queue.cost(), 0);
}

// The cost of n tokens is n + n * n / 100.
const CostModel kQuadratic{.attention = 0.01, .oversized = 1000};

TEST(CostModelTest, ASequenceWithSmallBasketsCostsMore) {
  const CostModel costs{.attention = 0.01, .oversized = 1000, .layers = 4};
  Sequence sequence = MakeSequence(1, 200);
  EXPECT_EQ(costs.CostOf(sequence), 200 + 400);
  sequence.calibration = {.basket = 100, .first_layer = 2, .rows = {0, 200}};
  EXPECT_EQ(costs.CostOf(sequence), 600 + 2 * 200 / 10);  // Half of the layers, two baskets for each row.
  EXPECT_FALSE(costs.IsOversized(sequence));
  sequence.calibration.basket = 1;
  EXPECT_EQ(costs.CostOf(sequence), 600 + 200 * 200 / 10);
  EXPECT_TRUE(costs.IsOversized(sequence));
  sequence.calibration.rows = {0, 1};  // As with CLS pooling.
  EXPECT_EQ(costs.CostOf(sequence), 600 + 200 / 10);
}

TEST(BatchQueueTest, AttentionCountsAgainstTheBudget) {
  BatchQueue queue(kQuadratic);
  queue.Push(MakeJob(1, {100, 100}), kStart);  // They cost 200 each.
  EXPECT_EQ(queue.tokens(), 200);
  EXPECT_EQ(queue.cost(), 400);
  EXPECT_THAT(Take(queue, {.max_tokens = 399}), ElementsAre(1100));
  EXPECT_EQ(queue.cost(), 200);
  EXPECT_THAT(Take(queue, {.max_tokens = 400}), ElementsAre(1100));
  EXPECT_EQ(queue.cost(), 0);
}

TEST(BatchQueueTest, OversizedSequencesWaitWhereTheyMayNotStart) {
  BatchQueue queue(kQuadratic);
  const auto oversized = MakeJob(1, {300});  // It costs 1200.
  queue.Push(oversized, kStart);
  EXPECT_TRUE(queue.HasWork(/*oversized=*/true));
  EXPECT_FALSE(queue.HasWork(/*oversized=*/false));
  EXPECT_THAT(Take(queue, {.oversized = false}), ElementsAre());
  queue.Push(MakeJob(2, {10, 300, 5}), kStart + absl::Seconds(1));
  queue.Push(MakeJob(3, {10}), kStart + absl::Seconds(2));
  EXPECT_EQ(queue.NextUrgency(false).second, kStart + absl::Seconds(1) + BatchQueue::kMaxDeadlineSlack);
  // Sequences behind an oversized one of the same job wait with it.
  EXPECT_THAT(Take(queue, {.oversized = false}), ElementsAre(2010, 3010));
  EXPECT_FALSE(queue.HasWork(false));
  EXPECT_TRUE(queue.Remove(*oversized));
  EXPECT_THAT(Take(queue, {.max_tokens = 5000}), ElementsAre(2300));
  EXPECT_THAT(Take(queue, {.max_tokens = 5000}), ElementsAre(2005));
  EXPECT_FALSE(queue.HasWork(true));
}

// Work behind any number of oversized sequences that must not start yet must be found. Otherwise, HasWork would report
// work that TakeBatch does not return, and workers would spin.
TEST(BatchQueueTest, ManyOversizedSequencesInFrontHideNothing) {
  BatchQueue queue(kQuadratic);
  for (int i = 0; i < 200; ++i) queue.Push(MakeJob(1, {300}), kStart);
  queue.Push(MakeJob(2, {5}), kStart + absl::Seconds(1));
  EXPECT_EQ(queue.cost(/*oversized=*/false), 5);
  ASSERT_TRUE(queue.HasWork(false));
  EXPECT_THAT(Take(queue, {.oversized = false}), ElementsAre(2005));
  EXPECT_FALSE(queue.HasWork(false));
}

TEST(BatchQueueTest, AnOversizedSequenceRunsAlone) {
  BatchQueue queue(kQuadratic);
  queue.Push(MakeJob(1, {5}), kStart);
  queue.Push(MakeJob(2, {300, 6}), kStart);
  queue.Push(MakeJob(3, {7}), kStart);
  EXPECT_THAT(Take(queue, {.max_tokens = 1 << 20}), ElementsAre(1005, 3007));
  EXPECT_THAT(Take(queue, {.max_tokens = 1 << 20}), ElementsAre(2300));
  EXPECT_THAT(Take(queue, {.max_tokens = 1 << 20}), ElementsAre(2006));
}

// After any mix of pushes, takes, removals and expirations, the counts must return to zero, and HasWork must agree with
// TakeBatch.
TEST(BatchQueueTest, CountsNeverDrift) {
  std::mt19937 random(7);
  const auto below = [&](int n) { return static_cast<int>(random() % static_cast<uint32_t>(n)); };
  BatchQueue queue(kQuadratic);
  std::vector<std::shared_ptr<Job>> jobs;
  absl::Time now = kStart;
  for (int step = 0; step < 3000; ++step, now += absl::Milliseconds(below(200))) {
    std::vector<int> sizes(static_cast<size_t>(1 + below(4)));
    for (int& size : sizes) size = below(5) == 0 ? 300 + below(50) : 1 + below(60);
    JobOptions options;
    if (below(3) == 0) options.deadline = now + absl::Milliseconds(below(2000));
    switch (below(4)) {
      case 0:
      case 1:
        queue.Push(jobs.emplace_back(MakeJob(1, sizes, options)), now);
        break;
      case 2: {
        const bool oversized = below(2) == 0, promised = queue.HasWork(oversized);
        ASSERT_EQ(!queue.TakeBatch({.max_tokens = 1 + below(500), .oversized = oversized}, kStart).empty(), promised);
        break;
      }
      default:
        if (!jobs.empty()) queue.Remove(*jobs[static_cast<size_t>(below(static_cast<int>(jobs.size())))]);
        for (const auto& job : queue.TakeExpired(now)) ASSERT_LE(job->options().deadline, now);
    }
    ASSERT_GE(queue.cost(false), 0);
    ASSERT_GE(queue.cost(), queue.tokens());
  }
  queue.TakeExpired(absl::InfiniteFuture());
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(queue.tokens(), 0);
  EXPECT_EQ(queue.cost(), 0);
  EXPECT_EQ(queue.cost(false), 0);
  EXPECT_FALSE(queue.HasWork(true));
}

}  // namespace
}  // namespace longembed
