#include "server/batching/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <future>
#include <set>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "server/errors/errors.h"
#include "system/mutex.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fake_encoder.h"

namespace longembed {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

// A job and the future of its answer.
struct Pending {
  std::shared_ptr<Job> job;
  std::future<absl::StatusOr<JobResult>> answer;

  absl::StatusCode code() { return answer.get().status().code(); }
  bool answered() { return answer.wait_for(std::chrono::seconds(0)) == std::future_status::ready; }
};

Pending MakePending(std::vector<Sequence> sequences, const JobOptions& options = {}) {
  auto promise = std::make_shared<std::promise<absl::StatusOr<JobResult>>>();
  Pending pending;
  pending.answer = promise->get_future();
  // set_value throws if it is called twice, so a second answer would end the test.
  pending.job = std::make_shared<Job>(std::move(sequences), options, [promise](absl::StatusOr<JobResult> result) {
    promise->set_value(std::move(result));
  });
  return pending;
}

class SchedulerTest : public ::testing::Test {
 protected:
  // Occupies the only worker until the gate opens.
  Pending BlockWorker() {
    encoder_.CloseGate();
    Pending blocker = MakePending({MakeSequence(99, 1)});
    EXPECT_TRUE(lane_->Submit(blocker.job).ok());
    encoder_.AwaitCalls(1);
    return blocker;
  }

  FakeClock clock_;
  FakeEncoder encoder_;
  Scheduler scheduler_{{.workers = 1}, clock_};
  std::unique_ptr<Lane> lane_ = scheduler_.AddLane(encoder_, {.batch = {.max_tokens = 100}}, nullptr);
};

TEST_F(SchedulerTest, AnswersWithOneVectorPerSpanInOrder) {
  Sequence two_spans = MakeSequence(5, 4);
  two_spans.spans = {{0, 1}, {1, 4}};
  Pending pending = MakePending({MakeSequence(3, 2), two_spans});
  ASSERT_TRUE(lane_->Submit(pending.job).ok());
  const auto result = pending.answer.get();
  ASSERT_TRUE(result.ok());
  EXPECT_THAT(result->vectors, ElementsAre(ElementsAre(6, 2, 2, 1), ElementsAre(5, 1, 4, 1), ElementsAre(15, 3, 4, 1)));
}

TEST_F(SchedulerTest, BatchesAcrossJobsWhileTheWorkerIsBusy) {
  Pending blocker = BlockWorker();
  Pending first = MakePending({MakeSequence(1, 30)});
  Pending second = MakePending({MakeSequence(2, 30), MakeSequence(3, 60)});
  ASSERT_TRUE(lane_->Submit(first.job).ok());
  ASSERT_TRUE(lane_->Submit(second.job).ok());
  EXPECT_EQ(lane_->queue_state().tokens, 120);
  encoder_.OpenGate();
  EXPECT_TRUE(first.answer.get().ok());
  EXPECT_THAT(second.answer.get()->vectors, SizeIs(2));
  EXPECT_THAT(encoder_.batches(), ElementsAre(ElementsAre(99), ElementsAre(1, 2), ElementsAre(3)));
}

TEST_F(SchedulerTest, ACancelledJobNeverReachesTheEncoder) {
  Pending blocker = BlockWorker();
  Pending cancelled = MakePending({MakeSequence(1, 30)});
  Pending kept = MakePending({MakeSequence(2, 30)});
  ASSERT_TRUE(lane_->Submit(cancelled.job).ok());
  ASSERT_TRUE(lane_->Submit(kept.job).ok());
  lane_->Cancel(*cancelled.job);
  EXPECT_EQ(cancelled.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(lane_->queue_state().tokens, 30);
  lane_->Cancel(*cancelled.job);
  encoder_.OpenGate();
  EXPECT_TRUE(kept.answer.get().ok());
  EXPECT_THAT(encoder_.batches(), ElementsAre(ElementsAre(99), ElementsAre(2)));
}

// A client that keeps cancelling while one batch runs must not fill the memory.
TEST_F(SchedulerTest, ACancelledJobKeepsOnlySequencesOfARunningBatch) {
  encoder_.CloseGate();
  Pending job = MakePending({MakeSequence(1, 90), MakeSequence(2, 90), MakeSequence(3, 90)});
  ASSERT_TRUE(lane_->Submit(job.job).ok());
  encoder_.AwaitCalls(1);
  lane_->Cancel(*job.job);
  EXPECT_EQ(job.job->sequences()[0].size(), 90);
  EXPECT_EQ(job.job->sequences()[1].tokens.capacity(), 0);
  EXPECT_EQ(job.job->sequences()[2].tokens.capacity(), 0);
  encoder_.OpenGate();
  EXPECT_EQ(job.code(), absl::StatusCode::kCancelled);
}

TEST_F(SchedulerTest, AJobFreesTheSequencesThatHaveRun) {
  Pending job = MakePending({MakeSequence(1, 90), MakeSequence(2, 90)});
  ASSERT_TRUE(lane_->Submit(job.job).ok());
  ASSERT_TRUE(job.answer.get().ok());
  for (const Sequence& sequence : job.job->sequences()) EXPECT_EQ(sequence.tokens.capacity(), 0);
}

TEST_F(SchedulerTest, AnExpiredJobNeverReachesTheEncoder) {
  Pending blocker = BlockWorker();
  Pending late = MakePending({MakeSequence(1, 30)}, {.deadline = clock_.Now() + absl::Milliseconds(1)});
  Pending kept = MakePending({MakeSequence(2, 30)});
  ASSERT_TRUE(lane_->Submit(late.job).ok());
  ASSERT_TRUE(lane_->Submit(kept.job).ok());
  clock_.Advance(absl::Milliseconds(2));
  encoder_.OpenGate();
  EXPECT_EQ(late.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(kept.answer.get().ok());
  EXPECT_THAT(encoder_.batches(), ElementsAre(ElementsAre(99), ElementsAre(2)));
}

TEST_F(SchedulerTest, ADeadlineThatHasPassedIsRefusedAtOnce) {
  Pending late = MakePending({MakeSequence(1, 1)}, {.deadline = clock_.Now()});
  EXPECT_EQ(lane_->Submit(late.job).code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(SchedulerTest, ARunningBatchIsStoppedWhenCancelled) {
  Pending blocker = BlockWorker();
  lane_->Cancel(*blocker.job);
  EXPECT_EQ(blocker.code(), absl::StatusCode::kCancelled);
  // The gate is still closed, so only the cancellation can end the batch.
  Pending next = MakePending({MakeSequence(2, 1)});
  ASSERT_TRUE(lane_->Submit(next.job).ok());
  encoder_.AwaitCalls(2);
  EXPECT_EQ(encoder_.given_up(), 1);
  encoder_.OpenGate();
  EXPECT_TRUE(next.answer.get().ok());
}

TEST_F(SchedulerTest, ARunningBatchIsGivenUpWhenEveryDeadlineHasPassed) {
  encoder_.CloseGate();
  Pending late = MakePending({MakeSequence(1, 1)}, {.deadline = clock_.Now() + absl::Seconds(1)});
  ASSERT_TRUE(lane_->Submit(late.job).ok());
  encoder_.AwaitCalls(1);
  clock_.Advance(absl::Seconds(2));
  EXPECT_EQ(late.code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(SchedulerTest, AnEncoderErrorReachesEveryJobOfTheBatch) {
  encoder_.FailWith(absl::InternalError("broken"));
  Pending pending = MakePending({MakeSequence(1, 1), MakeSequence(1, 2)});
  ASSERT_TRUE(lane_->Submit(pending.job).ok());
  EXPECT_EQ(pending.code(), absl::StatusCode::kInternal);
  encoder_.FailWith(absl::OkStatus());
  Pending next = MakePending({MakeSequence(1, 1)});
  ASSERT_TRUE(lane_->Submit(next.job).ok());
  EXPECT_TRUE(next.answer.get().ok());
}

// A faulty job must not fail other jobs that only shared a batch with it.
TEST_F(SchedulerTest, OnlyTheFaultyJobFails) {
  encoder_.FailOn(7, absl::InternalError("broken"));
  Pending blocker = BlockWorker();
  Pending before = MakePending({MakeSequence(1, 2), MakeSequence(2, 2)}),
          faulty = MakePending({MakeSequence(6, 2), MakeSequence(7, 2)}), after = MakePending({MakeSequence(3, 2)});
  for (const Pending* pending : {&before, &faulty, &after}) ASSERT_TRUE(lane_->Submit(pending->job).ok());
  encoder_.OpenGate();
  const auto result = before.answer.get();
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_THAT(result->vectors, ElementsAre(ElementsAre(2, 2, 2, 1), ElementsAre(4, 2, 2, 1)));
  EXPECT_EQ(faulty.code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(after.answer.get().ok());
  EXPECT_THAT(encoder_.batches(), ElementsAre(ElementsAre(99), ElementsAre(1, 2, 6, 7, 3), ElementsAre(1, 2),
                                              ElementsAre(6, 7), ElementsAre(3)));
  EXPECT_TRUE(lane_->WaitIdle(absl::Seconds(20)));
}

// After the first batch of a job has failed, the rest of the job must not run.
TEST_F(SchedulerTest, AFailedJobLeavesTheQueue) {
  encoder_.FailOn(7, absl::InternalError("broken"));
  Pending blocker = BlockWorker();
  Pending faulty = MakePending({MakeSequence(7, 60), MakeSequence(8, 60)}), other = MakePending({MakeSequence(1, 60)});
  ASSERT_TRUE(lane_->Submit(faulty.job).ok());
  ASSERT_TRUE(lane_->Submit(other.job).ok());
  encoder_.OpenGate();
  EXPECT_EQ(faulty.code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(other.answer.get().ok());
  EXPECT_THAT(encoder_.batches(), ElementsAre(ElementsAre(99), ElementsAre(7), ElementsAre(1)));
}

TEST_F(SchedulerTest, CancelledAndLateJobsAreNotRunAgain) {
  encoder_.FailOn(7, absl::InternalError("broken"));
  Pending blocker = BlockWorker();
  Pending cancelled = MakePending({MakeSequence(1, 2)}), faulty = MakePending({MakeSequence(7, 2)}),
          late = MakePending({MakeSequence(2, 2)}, {.deadline = clock_.Now() + absl::Seconds(1)});
  for (const Pending* pending : {&cancelled, &faulty, &late}) ASSERT_TRUE(lane_->Submit(pending->job).ok());
  lane_->Cancel(*blocker.job);  // Its batch is cancelled. The next batch waits at the closed gate.
  encoder_.AwaitCalls(2);
  lane_->Cancel(*cancelled.job);
  clock_.Advance(absl::Seconds(2));
  encoder_.OpenGate();
  EXPECT_EQ(cancelled.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(faulty.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(late.code(), absl::StatusCode::kDeadlineExceeded);
  for (const std::vector<int32_t>& batch : encoder_.batches()) EXPECT_NE(batch, std::vector<int32_t>{1});
}

TEST_F(SchedulerTest, IsIdleWhenEverythingIsAnswered) {
  Pending blocker = BlockWorker();
  EXPECT_FALSE(lane_->WaitIdle(absl::Milliseconds(1)));
  encoder_.OpenGate();
  EXPECT_TRUE(lane_->WaitIdle(absl::InfiniteDuration()));
  EXPECT_TRUE(blocker.answer.get().ok());
}

// Resources of a job, such as its permit, may be destroyed as soon as the lane is destroyed.
TEST_F(SchedulerTest, JobsAreReleasedBeforeTheirLaneEnds) {
  class SlowPermit final : public QueuePermit {
   public:
    explicit SlowPermit(std::atomic<bool>& gone) : gone_(gone) {}
    ~SlowPermit() override {
      absl::SleepFor(absl::Milliseconds(100));
      gone_ = true;
    }
    void Release(int64_t, absl::Duration, std::optional<absl::Time>) override {}

   private:
    std::atomic<bool>& gone_;
  };
  std::atomic<bool> gone = false;
  Pending pending = MakePending({MakeSequence(1, 5)}, {.permit = std::make_shared<SlowPermit>(gone)});
  ASSERT_TRUE(lane_->Submit(std::exchange(pending.job, nullptr)).ok());
  EXPECT_TRUE(pending.answer.get().ok());
  lane_ = nullptr;
  EXPECT_TRUE(gone);
}

TEST_F(SchedulerTest, QueueStateAlsoCountsBatchesWhoseCallsAreGone) {
  encoder_.IgnoreCancellation();
  EXPECT_EQ(lane_->queue_state().running_batches, 0);
  Pending blocker = BlockWorker();
  EXPECT_EQ(lane_->queue_state().running_batches, 1);
  lane_->Cancel(*blocker.job);
  EXPECT_EQ(blocker.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(lane_->queue_state().running_batches, 1);
  encoder_.OpenGate();
  while (lane_->queue_state().running_batches > 0) absl::SleepFor(absl::Milliseconds(1));
}

TEST_F(SchedulerTest, QueueStateHasTheAgeOfTheOldestJob) {
  Pending blocker = BlockWorker();
  EXPECT_EQ(lane_->queue_state().oldest, absl::ZeroDuration());
  Pending waiting = MakePending({MakeSequence(1, 5)});
  ASSERT_TRUE(lane_->Submit(waiting.job).ok());
  clock_.Advance(absl::Seconds(3));
  EXPECT_EQ(lane_->queue_state().jobs, 1u);
  EXPECT_EQ(lane_->queue_state().oldest, absl::Seconds(3));
  encoder_.OpenGate();
  EXPECT_EQ(waiting.answer.get()->queue, absl::Seconds(3));
}

class CountingObserver final : public SchedulerObserver {
 public:
  void OnBatch(int64_t batch_tokens, size_t batch_sequences, absl::Duration) override {
    ++batches;
    tokens += batch_tokens;
    sequences += static_cast<int>(batch_sequences);
  }
  void OnDequeued(absl::Duration) override { ++dequeued; }
  void OnFailure() override { ++failures; }

  std::atomic<int> batches = 0, sequences = 0, dequeued = 0, failures = 0;
  std::atomic<int64_t> tokens = 0;
};

// Runs jobs of one sequence each. They wait together, and therefore share a batch.
class SchedulerObserverTest : public SchedulerTest {
 protected:
  void RunTogether(const std::vector<int32_t>& tokens) {
    std::vector<Pending> all;
    Pending blocker = BlockWorker();  // It runs on the other lane.
    for (const int32_t token : tokens) {
      all.push_back(MakePending({MakeSequence(token, 3)}));
      ASSERT_TRUE(observed_lane_->Submit(all.back().job).ok());
    }
    encoder_.OpenGate();
    for (Pending& pending : all) pending.answer.wait();
    EXPECT_TRUE(blocker.answer.get().ok());
    // Destroying the lane waits for its batches, after which the observer has been told of everything.
    observed_lane_ = nullptr;
  }

  CountingObserver observer_;
  std::unique_ptr<Lane> observed_lane_ = scheduler_.AddLane(encoder_, {.batch = {.max_tokens = 100}}, &observer_);
};

TEST_F(SchedulerObserverTest, ObservesBatches) {
  RunTogether({1, 2, 3});
  EXPECT_EQ(observer_.batches, 1);
  EXPECT_EQ(observer_.sequences, 3);
  EXPECT_EQ(observer_.tokens, 9);
  EXPECT_EQ(observer_.dequeued, 3);
  EXPECT_EQ(observer_.failures, 0);
}

TEST_F(SchedulerObserverTest, ObservesFailuresAndEverySequenceOnce) {
  encoder_.FailOn(7, absl::InternalError("broken"));
  RunTogether({1, 7, 3});
  EXPECT_EQ(observer_.failures, 2);  // First all jobs together failed, and then the faulty one alone.
  EXPECT_EQ(observer_.batches, 2);
  EXPECT_EQ(observer_.sequences, 2);
  EXPECT_EQ(observer_.dequeued, 3);
}

TEST_F(SchedulerObserverTest, OutOfMemoryIsNotAnEncoderFailure) {
  encoder_.FailOn(7, absl::ResourceExhaustedError("memory"));
  RunTogether({1, 7, 3});
  EXPECT_EQ(observer_.failures, 0);
  EXPECT_EQ(observer_.sequences, 2);
}

// Runs a batch of 10 tokens that takes `took` on a scheduler with `workers` workers. Returns WorkOf(cost) afterwards.
absl::Duration MeasuredWork(int workers, const CostModel& costs, absl::Duration took, int64_t cost) {
  FakeClock clock;
  FakeEncoder encoder;
  Scheduler scheduler({.workers = workers}, clock);
  const auto lane = scheduler.AddLane(encoder, {.batch = {.max_tokens = 1000}, .costs = costs}, nullptr);
  EXPECT_EQ(lane->WorkOf(1000), absl::ZeroDuration());  // Nothing is known yet.
  encoder.CloseGate();
  Pending pending = MakePending({MakeSequence(1, 10)});
  EXPECT_TRUE(lane->Submit(pending.job).ok());
  encoder.AwaitCalls(1);
  clock.Advance(took);
  encoder.OpenGate();
  EXPECT_TRUE(pending.answer.get().ok());
  return lane->WorkOf(cost);
}

bool Near(absl::Duration one, absl::Duration other) { return absl::AbsDuration(one - other) < absl::Microseconds(1); }

TEST(SchedulerMeasureTest, WorkIsMeasuredInSecondsOfTheWholeDevice) {
  EXPECT_TRUE(Near(MeasuredWork(1, {}, absl::Seconds(2), 10), absl::Seconds(2)));
  EXPECT_TRUE(Near(MeasuredWork(1, {}, absl::Seconds(2), 100), absl::Seconds(20)));
  EXPECT_TRUE(Near(MeasuredWork(4, {}, absl::Seconds(2), 10), absl::Seconds(0.5)));
  // 10 tokens cost 10 + 0.5 * 100.
  EXPECT_TRUE(Near(MeasuredWork(1, {.attention = 0.5}, absl::Seconds(6), 10), absl::Seconds(1)));
}

TEST_F(SchedulerTest, WorkFollowsTheTimesOfRecentBatches) {
  const auto run = [this](absl::Duration took) {
    encoder_.CloseGate();
    const int calls = static_cast<int>(encoder_.batches().size());
    Pending pending = MakePending({MakeSequence(1, 10)});
    ASSERT_TRUE(lane_->Submit(pending.job).ok());
    encoder_.AwaitCalls(calls + 1);
    clock_.Advance(took);
    encoder_.OpenGate();
    pending.answer.wait();
  };
  run(absl::Seconds(1));
  EXPECT_TRUE(Near(lane_->WorkOf(10), absl::Seconds(1)));
  run(absl::Seconds(3));
  EXPECT_GT(lane_->WorkOf(10), absl::Seconds(2));  // More than the mean, because the first batch counts less by now.
  EXPECT_LT(lane_->WorkOf(10), absl::Seconds(3));
  for (int i = 0; i < 30; ++i) run(absl::Seconds(1));
  EXPECT_LT(lane_->WorkOf(10), absl::Seconds(1.05));
  // A process that was stopped is not as slow as that afterwards.
  run(absl::Minutes(10));
  EXPECT_LT(lane_->WorkOf(10), absl::Seconds(5));
  // A machine that has become slower is.
  for (int i = 0; i < 30; ++i) run(absl::Seconds(60));
  EXPECT_GT(lane_->WorkOf(10), absl::Seconds(59));
  // A failed batch must not be measured.
  encoder_.FailWith(absl::InternalError("broken"));
  const absl::Duration before = lane_->WorkOf(10);
  run(absl::Hours(1));
  EXPECT_EQ(lane_->WorkOf(10), before);
}

class CountingPermit final : public QueuePermit {
 public:
  void Release(int64_t tokens, absl::Duration, std::optional<absl::Time>) override { released += tokens; }

  std::atomic<int64_t> released = 0;
};

TEST_F(SchedulerTest, PermitsAreReleasedWhenABatchBeginsOrItsJobEnds) {
  const auto running = std::make_shared<CountingPermit>(), cancelled = std::make_shared<CountingPermit>(),
             late = std::make_shared<CountingPermit>(), left = std::make_shared<CountingPermit>();
  encoder_.CloseGate();
  Pending first = MakePending({MakeSequence(1, 90), MakeSequence(1, 60)}, {.permit = running});
  ASSERT_TRUE(lane_->Submit(first.job).ok());
  encoder_.AwaitCalls(1);
  EXPECT_EQ(running->released, 90);
  Pending second = MakePending({MakeSequence(2, 70)}, {.permit = cancelled}),
          third = MakePending({MakeSequence(3, 80)}, {.deadline = clock_.Now() + absl::Seconds(1), .permit = late}),
          fourth = MakePending({MakeSequence(4, 80)}, {.priority = Priority::kBulk, .permit = left});
  for (const Pending* pending : {&second, &third, &fourth}) ASSERT_TRUE(lane_->Submit(pending->job).ok());
  lane_->Cancel(*second.job);
  EXPECT_EQ(cancelled->released, 70);
  EXPECT_EQ(late->released, 0);
  clock_.Advance(absl::Seconds(2));
  lane_->Cancel(*first.job);
  EXPECT_EQ(running->released, 150);
  encoder_.OpenGate();
  EXPECT_EQ(third.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(fourth.answer.get().ok());
  EXPECT_EQ(late->released, 80);
  EXPECT_EQ(left->released, 80);
}

TEST(SchedulerEndTest, WaitingJobsAreAnsweredAtTheEnd) {
  FakeClock clock;
  FakeEncoder encoder;
  encoder.CloseGate();
  Pending running = MakePending({MakeSequence(1, 1)});
  Pending waiting = MakePending({MakeSequence(2, 1)});
  std::jthread opener;
  {
    Scheduler scheduler({.workers = 1}, clock);
    const auto lane = scheduler.AddLane(encoder, {.batch = {.max_tokens = 1}}, nullptr);
    ASSERT_TRUE(lane->Submit(running.job).ok());
    encoder.AwaitCalls(1);
    ASSERT_TRUE(lane->Submit(waiting.job).ok());
    opener = std::jthread([&] {
      waiting.answer.wait();
      encoder.OpenGate();
    });
  }
  EXPECT_TRUE(running.answer.get().ok());
  EXPECT_EQ(waiting.code(), absl::StatusCode::kUnavailable);
}

// With two workers only one oversized sequence runs, so that short work finds the other worker. The second oversized
// sequence runs after the first.
TEST(SchedulerOversizedTest, NeverTakesEveryWorker) {
  FakeClock clock;
  FakeEncoder encoder;
  Scheduler scheduler({.workers = 2}, clock);
  const auto lane = scheduler.AddLane(encoder, {.costs = {.oversized = 50}}, nullptr);
  encoder.CloseGate();
  Pending first = MakePending({MakeSequence(1, 60)}), second = MakePending({MakeSequence(2, 60)});
  ASSERT_TRUE(lane->Submit(first.job).ok());
  ASSERT_TRUE(lane->Submit(second.job).ok());
  encoder.AwaitCalls(1);
  Pending brief = MakePending({MakeSequence(3, 5)});
  ASSERT_TRUE(lane->Submit(brief.job).ok());
  encoder.AwaitCalls(2);
  EXPECT_THAT(encoder.batches(), ElementsAre(ElementsAre(1), ElementsAre(3)));
  EXPECT_EQ(lane->queue_state().jobs, 1u);
  encoder.OpenGate();
  EXPECT_TRUE(brief.answer.get().ok());
  EXPECT_TRUE(second.answer.get().ok());
  EXPECT_THAT(encoder.batches(), ElementsAre(ElementsAre(1), ElementsAre(3), ElementsAre(2)));
}

// Both workers are free when a job of many sequences arrives, so they divide it.
TEST(SchedulerShareTest, FreeWorkersDivideWaitingSequences) {
  FakeClock clock;
  FakeEncoder encoder;
  encoder.CloseGate();
  Scheduler scheduler({.workers = 2}, clock);
  const auto lane = scheduler.AddLane(encoder, {.batch = {.max_tokens = 1000}}, nullptr);
  Pending pending = MakePending(std::vector<Sequence>(8, MakeSequence(1, 50)));
  ASSERT_TRUE(lane->Submit(pending.job).ok());
  encoder.AwaitCalls(2);
  EXPECT_THAT(encoder.batches(), ElementsAre(SizeIs(4), SizeIs(4)));
  encoder.OpenGate();
  EXPECT_THAT(pending.answer.get()->vectors, SizeIs(8));
}

// The lanes of one scheduler share its workers. The most urgent job of all lanes runs first.
TEST(SchedulerLanesTest, TheMostUrgentLaneComesFirst) {
  FakeClock clock;
  FakeEncoder blocked, one, other;
  Scheduler scheduler({.workers = 1}, clock);
  const auto blocker_lane = scheduler.AddLane(blocked, {}, nullptr), lane = scheduler.AddLane(one, {}, nullptr),
             other_lane = scheduler.AddLane(other, {}, nullptr);
  blocked.CloseGate();
  Pending blocker = MakePending({MakeSequence(9, 1)});
  ASSERT_TRUE(blocker_lane->Submit(blocker.job).ok());
  blocked.AwaitCalls(1);
  one.CloseGate();
  Pending late = MakePending({MakeSequence(1, 1)}),
          soon = MakePending({MakeSequence(2, 1)}, {.deadline = clock.Now() + absl::Seconds(1)});
  ASSERT_TRUE(lane->Submit(late.job).ok());
  ASSERT_TRUE(other_lane->Submit(soon.job).ok());
  blocked.OpenGate();
  EXPECT_TRUE(soon.answer.get().ok());  // It runs while the gate of the other lane's encoder is closed.
  one.OpenGate();
  EXPECT_TRUE(late.answer.get().ok());
}

// An encoder whose batch ends only after a second thread has helped.
class TeamworkEncoder final : public Encoder {
 public:
  absl::StatusOr<VectorBlock> Encode(const PackedBatch& batch, Team::Leader& leader,
                                     absl::FunctionRef<bool()>) override {
    Mutex mutex;
    std::set<std::thread::id> threads;
    while (threads.size() < 2) {
      leader.ParallelFor(4, [&](int) {
        const MutexLock lock(mutex);
        threads.insert(std::this_thread::get_id());
      });
    }
    return VectorBlock{.rows = static_cast<int>(batch.spans.size()), .width = 1, .values = {1.0f}};
  }
  int hidden_size() const override { return 1; }
  std::string device() const override { return "fake"; }
  std::string engine() const override { return "fake"; }
  bool uses_helpers() const override { return true; }
};

TEST(SchedulerHelpTest, AFreeWorkerHelpsWithTheOnlyBatch) {
  RealClock clock;
  TeamworkEncoder encoder;
  Scheduler scheduler({.workers = 2}, clock);
  const auto lane = scheduler.AddLane(encoder, {}, nullptr);
  for (int i = 0; i < 20; ++i) {
    Pending pending = MakePending({MakeSequence(1, 4)});
    ASSERT_TRUE(lane->Submit(pending.job).ok());
    EXPECT_TRUE(pending.answer.get().ok());
  }
}

// On a starved machine, a batch may take any time. It is not hanging as long as its worker waits for a core.
TEST(SchedulerHangTest, AWorkerThatWantsACoreDoesNotHang) {
  FakeClock clock;
  FakeEncoder encoder;
  std::atomic<bool> wants_core = true;
  std::atomic<size_t> asked_of = 0;
  Scheduler scheduler({.workers = 2,
                       .wants_cpu =
                           [&](std::span<const pid_t> threads) {
                             asked_of = threads.size();
                             return wants_core.load();
                           }},
                      clock);
  const auto lane = scheduler.AddLane(encoder, {}, nullptr);
  encoder.CloseGate();
  Pending pending = MakePending({MakeSequence(1, 4)});
  ASSERT_TRUE(lane->Submit(pending.job).ok());
  encoder.AwaitCalls(1);
  EXPECT_EQ(lane->queue_state().hanging, absl::ZeroDuration());
  clock.Advance(absl::Hours(1));
  EXPECT_EQ(lane->queue_state().hanging, absl::ZeroDuration());
  EXPECT_GE(asked_of, 1u);
  wants_core = false;
  EXPECT_GT(lane->queue_state().hanging, absl::Minutes(50));
  encoder.OpenGate();
  EXPECT_TRUE(pending.answer.get().ok());
}

// Many threads submit and cancel at the same time. Every job must get exactly one answer (a second one would throw).
TEST(SchedulerStressTest, EveryJobIsAnsweredOnce) {
  RealClock clock;
  FakeEncoder encoder;
  Scheduler scheduler({.workers = 2}, clock);
  const auto lane = scheduler.AddLane(encoder, {.batch = {.max_tokens = 50}}, nullptr);
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&lane, t] {
      for (int i = 0; i < 200; ++i) {
        JobOptions options;
        if (i % 5 == 0) options.deadline = absl::Now() + absl::Microseconds(200);
        Pending pending = MakePending({MakeSequence(t + 1, 1 + i % 40), MakeSequence(t + 1, 3)}, options);
        if (!lane->Submit(pending.job).ok()) continue;
        if (i % 3 == 0) lane->Cancel(*pending.job);
        const auto result = pending.answer.get();
        if (result.ok()) {
          EXPECT_EQ(result->vectors[0][0], static_cast<float>((t + 1) * (1 + i % 40)));
        }
      }
    });
  }
  threads.clear();
  EXPECT_TRUE(lane->WaitIdle(absl::Seconds(10)));
  EXPECT_EQ(lane->queue_state().tokens, 0);
}

}  // namespace
}  // namespace longembed
