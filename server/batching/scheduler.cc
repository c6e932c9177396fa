#include "server/batching/scheduler.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <new>
#include <utility>

#include "model/encoder/encode_in_halves.h"
#include "server/errors/errors.h"

namespace longembed {

Lane::Lane(Scheduler& scheduler, Encoder& encoder, const LaneOptions& options, SchedulerObserver* observer)
    : scheduler_(scheduler), encoder_(encoder), options_(options), observer_(observer), queue_(options.costs) {}

Lane::~Lane() {
  std::vector<std::shared_ptr<Job>> left;
  {
    const MutexLock lock(scheduler_.mutex_);
    closing_ = true;
    left = queue_.TakeExpired(absl::InfiniteFuture());
    scheduler_.UpdateWorkWaits();
  }
  for (const std::shared_ptr<Job>& job : left) scheduler_.Answer(*this, *job, ServerDraining());
  MutexLock lock(scheduler_.mutex_);
  scheduler_.settled_.Wait(lock, [this] { return running_batches_ == 0; });
  std::erase(scheduler_.lanes_, this);
}

absl::Status Lane::Submit(std::shared_ptr<Job> job) {
  const absl::Time now = scheduler_.clock_.Now();
  const MutexLock lock(scheduler_.mutex_);
  if (closing_) return ServerDraining();
  if (job->options_.deadline <= now) return DeadlineExceeded();
  ++unanswered_;
  queue_.Push(std::move(job), now);
  scheduler_.UpdateWorkWaits();
  scheduler_.work_arrived_.NotifyOne();
  return absl::OkStatus();
}

void Lane::Cancel(Job& job) { scheduler_.Answer(*this, job, CallCancelled()); }

bool Lane::WaitIdle(absl::Duration timeout) {
  MutexLock lock(scheduler_.mutex_);
  return scheduler_.settled_.WaitFor(lock, timeout, [this] { return unanswered_ == 0; });
}

void Lane::SeedThroughput(int64_t cost, absl::Duration took) {
  const MutexLock lock(scheduler_.mutex_);
  scheduler_.Measure(*this, cost, absl::ToDoubleSeconds(took));
}

absl::Duration Lane::TimeLimit(const Batch& batch) const {
  constexpr int kSlowness = 4;
  constexpr absl::Duration kAllowance = absl::Seconds(3);
  int64_t cost = 0;
  for (const BatchItem& item : batch) cost += options_.costs.CostOf(item.job->sequences_[item.sequence]);
  return kSlowness * scheduler_.options_.workers * WorkOf(cost) + kAllowance;
}

void Lane::AnswerAll(const absl::Status& status) {
  std::vector<std::shared_ptr<Job>> jobs;
  {
    const MutexLock lock(scheduler_.mutex_);
    jobs = queue_.TakeExpired(absl::InfiniteFuture());
    for (const RunningBatch& batch : running_) jobs.insert(jobs.end(), batch.jobs.begin(), batch.jobs.end());
    scheduler_.UpdateWorkWaits();
  }
  for (const std::shared_ptr<Job>& job : jobs) scheduler_.Answer(*this, *job, status);
}

QueueState Lane::queue_state() const {
  const absl::Time now = scheduler_.clock_.Now();
  const MutexLock lock(scheduler_.mutex_);
  absl::Duration hanging;
  for (const RunningBatch& batch : running_) hanging = std::max(hanging, scheduler_.Hanging(batch, now));
  return {.jobs = queue_.jobs(),
          .tokens = queue_.tokens(),
          .oldest = queue_.empty() ? absl::ZeroDuration() : now - queue_.oldest(),
          .running_batches = running_batches_,
          .hanging = hanging};
}

Scheduler::Scheduler(SchedulerOptions options, const Clock& clock) : options_(std::move(options)), clock_(clock) {
  free_workers_ = options_.workers;
  for (int i = 0; options_.threads && i < options_.workers; ++i) workers_.emplace_back([this] { RunWorker(); });
}

Scheduler::~Scheduler() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    UpdateWorkWaits();
  }
  work_arrived_.NotifyAll();
  workers_.clear();  // Joins.
}

std::unique_ptr<Lane> Scheduler::AddLane(Encoder& encoder, const LaneOptions& options, SchedulerObserver* observer) {
  std::unique_ptr<Lane> lane(new Lane(*this, encoder, options, observer));
  const MutexLock lock(mutex_);
  lanes_.push_back(lane.get());
  return lane;
}

void Scheduler::RunWorker() {
  if (options_.initialize_worker) options_.initialize_worker();
  {
    const MutexLock lock(mutex_);
    worker_threads_.push_back(static_cast<pid_t>(syscall(SYS_gettid)));
  }
  for (Assignment assignment; AwaitAssignment(assignment); assignment = {}) Run(assignment);
}

bool Scheduler::Step() {
  Assignment assignment;
  {
    const MutexLock lock(mutex_);
    Lane* const lane = MostUrgentLane();
    if (lane == nullptr || free_workers_ == 0) return false;
    TakeBatch(*lane, assignment);
  }
  Run(assignment);
  return true;
}

void Scheduler::Run(Assignment& assignment) {
  for (const std::shared_ptr<Job>& job : assignment.expired) Answer(*assignment.lane, *job, DeadlineExceeded());
  for (const std::shared_ptr<Job>& job : assignment.infeasible)
    Answer(*assignment.lane, *job, TooLateFor(*assignment.lane, *job));
  if (assignment.lane == nullptr) {
    HelpOthers();
  } else if (!assignment.batch.empty()) {
    NotifyDequeued(*assignment.lane, assignment.batch);
    EncodeBatch(*assignment.lane, assignment.batch);
  }
  FinishBatch(assignment);
}

absl::Status Scheduler::TooLateFor(const Lane& lane, const Job& job) const {
  const absl::Duration time = lane.WorkOf(job.cost_);
  return Overloaded(Overload::kDeadline, {.expected_wait = time, .max_wait = job.options_.deadline - clock_.Now()},
                    RetryDelayFor(time));
}

bool Scheduler::AwaitAssignment(Assignment& assignment) {
  MutexLock lock(mutex_);
  work_arrived_.Wait(lock, [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || MostUrgentLane() != nullptr || (helpable_ > 0 && team_.has_leaders());
  });
  if (stopping_) return false;
  if (Lane* const lane = MostUrgentLane(); lane != nullptr) TakeBatch(*lane, assignment);
  return true;
}

void Scheduler::TakeBatch(Lane& lane, Assignment& assignment) {
  // Minimum cost that a batch is limited to. One small batch with helpers is faster than smaller ones on all workers.
  constexpr int64_t kLeastShare = 64;
  assignment.lane = &lane;
  const absl::Time now = clock_.Now();
  assignment.expired = lane.queue_.TakeExpired(now);
  assignment.infeasible = lane.queue_.TakeInfeasible(now, lane.WorkOf(1));
  BatchLimits limits = lane.options_.batch;
  limits.oversized = OversizedMayStart();
  const int64_t share = (lane.queue_.cost(limits.oversized) + free_workers_ - 1) / free_workers_;
  limits.max_tokens = std::min(limits.max_tokens, std::max(share, kLeastShare));
  assignment.batch = lane.queue_.TakeBatch(limits, now);
  assignment.running = lane.running_.insert(
      lane.running_.end(),
      {.began = now, .cpu_began = ProcessCpuTime(), .time_limit = lane.TimeLimit(assignment.batch)});
  for (const BatchItem& item : assignment.batch) {
    if (assignment.running->jobs.empty() || assignment.running->jobs.back() != item.job) {
      assignment.running->jobs.push_back(item.job);
      if (absl::Time* const began = item.job->options_.began; began != nullptr) *began = std::min(*began, now);
    }
  }
  ++lane.running_batches_;
  --free_workers_;
  if (!assignment.batch.empty()) {
    const BatchItem& first = assignment.batch.front();
    assignment.oversized = lane.options_.costs.IsOversized(first.job->sequences_[first.sequence]);
  }
  if (assignment.oversized) ++running_oversized_;
  UpdateWorkWaits();
  // With only one notification for each job, workers would stay asleep while a job of many sequences waits.
  if (work_waits_) work_arrived_.NotifyOne();
}

Lane* Scheduler::MostUrgentLane() const {
  const bool oversized = OversizedMayStart();
  Lane* best = nullptr;
  std::pair<Priority, absl::Time> urgency;
  for (Lane* const lane : lanes_) {
    if (!lane->queue_.HasWork(oversized)) continue;
    const auto own = lane->queue_.NextUrgency(oversized);
    if (best == nullptr || own < urgency) {
      best = lane;
      urgency = own;
    }
  }
  return best;
}

bool Scheduler::OversizedMayStart() const { return running_oversized_ < MaxRunningOversized(options_.workers); }

void Scheduler::UpdateWorkWaits() { work_waits_.store(stopping_ || MostUrgentLane() != nullptr); }

void Scheduler::HelpOthers() {
  const absl::Time started = clock_.Now();
  team_.Help([this] { return work_waits_.load(std::memory_order_relaxed) || helpable_ == 0; });
  const double seconds = absl::ToDoubleSeconds(clock_.Now() - started);
  const MutexLock lock(mutex_);
  helping_.Add(seconds, 0);
}

void Scheduler::NotifyDequeued(Lane& lane, const Batch& batch) const {
  if (lane.observer_ == nullptr) return;
  const absl::Time now = clock_.Now();
  for (const BatchItem& item : batch) lane.observer_->OnDequeued(now - item.job->enqueued_);
}

void Scheduler::EncodeBatch(Lane& lane, const Batch& batch) {
  std::vector<const Sequence*> sequences;
  int64_t tokens = 0;
  for (const BatchItem& item : batch) {
    sequences.push_back(&item.job->sequences_[item.sequence]);
    tokens += sequences.back()->size();
  }
  const absl::Time started = clock_.Now();
  Team::Leader leader(team_);
  const bool helpable = lane.encoder_.uses_helpers();
  if (helpable) InviteHelpers(+1);
  absl::StatusOr<VectorBlock> vectors =
      EncodeInHalves(lane.encoder_, sequences, leader, [&] { return IsCancelled(batch); });
  if (helpable) InviteHelpers(-1);
  const absl::Time finished = clock_.Now();

  if (!vectors.ok()) return FailBatch(lane, batch, vectors.status(), finished);
  absl::StatusOr<Rows> rows = TakeRows(*std::move(vectors));
  if (!rows.ok()) return FailBatch(lane, batch, rows.status(), finished);
  if (lane.observer_ != nullptr) lane.observer_->OnBatch(tokens, batch.size(), finished - started);
  for (const std::shared_ptr<Job>& job : Deliver(lane, batch, *rows, started, finished)) {
    std::move(job->done_)(std::move(job->result_));
  }
}

void Scheduler::FailBatch(Lane& lane, const Batch& batch, const absl::Status& status, absl::Time finished) {
  if (lane.observer_ != nullptr && !absl::IsCancelled(status) && !absl::IsResourceExhausted(status)) {
    lane.observer_->OnFailure();
  }
  const bool several = batch.front().job != batch.back().job;
  if (!several || IsCancelled(batch)) {
    for (const BatchItem& item : batch) {
      const bool late = item.job->options_.deadline <= finished;
      Answer(lane, *item.job, late ? DeadlineExceeded() : status);
    }
    return;
  }
  // The sequences of a job are adjacent in a batch.
  for (auto begin = batch.begin(); begin != batch.end();) {
    const auto end =
        std::find_if(begin, batch.end(), [&begin](const BatchItem& item) { return item.job != begin->job; });
    if (!begin->job->settled()) EncodeBatch(lane, Batch(begin, end));
    begin = end;
  }
}

void Scheduler::InviteHelpers(int more) {
  {
    const MutexLock lock(mutex_);
    helpable_ += more;
  }
  if (more > 0) work_arrived_.NotifyAll();
}

void Scheduler::FinishBatch(Assignment& assignment) {
  if (assignment.lane == nullptr) return;
  // Frees the jobs before the lane can be destroyed, because what they refer to may be destroyed with it.
  assignment.batch.clear();
  assignment.expired.clear();
  assignment.infeasible.clear();
  std::vector<std::shared_ptr<Job>> jobs;
  {
    const MutexLock lock(mutex_);
    jobs.swap(assignment.running->jobs);
  }
  jobs.clear();
  const MutexLock lock(mutex_);
  --assignment.lane->running_batches_;
  assignment.lane->running_.erase(assignment.running);
  ++free_workers_;
  if (assignment.oversized) --running_oversized_;
  UpdateWorkWaits();
  if (work_waits_) work_arrived_.NotifyOne();
  settled_.NotifyAll();
}

// A batch that waits for a core has a runnable worker. A batch that hangs has none, or has had enough CPU time.
absl::Duration Scheduler::Hanging(const Lane::RunningBatch& batch, absl::Time now) const {
  const absl::Duration took = now - batch.began;
  if (took <= batch.time_limit) return absl::ZeroDuration();
  const bool had_time = ProcessCpuTime() - batch.cpu_began >= batch.time_limit;
  const bool starved = !had_time && options_.wants_cpu(worker_threads_);
  return starved ? absl::ZeroDuration() : took - batch.time_limit;
}

bool Scheduler::IsCancelled(const Batch& batch) const {
  const absl::Time now = clock_.Now();
  return std::all_of(batch.begin(), batch.end(), [now](const BatchItem& item) {
    return item.job->settled() || item.job->options_.deadline <= now;
  });
}

absl::StatusOr<Scheduler::Rows> Scheduler::TakeRows(VectorBlock block) {
  Rows rows{.sparse = std::move(block.sparse)};
  try {
    rows.dense.reserve(static_cast<size_t>(block.rows));
    for (int i = 0; i < block.rows; ++i) rows.dense.emplace_back(block.row(i).begin(), block.row(i).end());
  } catch (const std::bad_alloc&) {
    return ServerOutOfMemory();
  }
  return rows;
}

std::vector<std::shared_ptr<Job>> Scheduler::Deliver(Lane& lane, const Batch& batch, Rows& rows, absl::Time started,
                                                     absl::Time finished) {
  std::vector<std::shared_ptr<Job>> complete;
  auto row = rows.dense.begin();
  auto sparse = rows.sparse.begin();
  const MutexLock lock(mutex_);
  // A process that was stopped for a while is not slower afterwards. A slower machine shows in the next batches, too.
  const bool is_first = lane.seconds_per_cost_ == 0;
  const absl::Duration measured = std::min(finished - started, is_first ? finished - started : lane.TimeLimit(batch));
  int64_t cost = 0;
  const Job* previous = nullptr;
  for (const BatchItem& item : batch) {
    Job& job = *item.job;
    const Sequence ran = std::exchange(job.sequences_[item.sequence], {});
    cost += lane.options_.costs.CostOf(ran);
    const auto own = std::exchange(row, row + static_cast<ptrdiff_t>(ran.sparse ? 0 : ran.spans.size()));
    const auto own_sparse = std::exchange(sparse, sparse + (ran.sparse ? 1 : 0));
    if (job.settled()) continue;
    const size_t first = job.first_vector_[item.sequence];
    if (ran.sparse) {
      job.result_.sparse[first] = std::move(*own_sparse);
    } else {
      std::move(own, row, job.result_.vectors.begin() + static_cast<ptrdiff_t>(first));
    }
    job.result_.queue = std::max(job.result_.queue, started - job.enqueued_);
    if (&job != previous) job.result_.inference += finished - started;
    previous = &job;  // The sequences of a job are adjacent in a batch.
    assert(job.unfinished_ > 0);
    if (--job.unfinished_ == 0 && Settle(lane, job)) complete.push_back(item.job);
  }
  Measure(lane, cost, absl::ToDoubleSeconds(measured));
  return complete;
}

void Scheduler::Measure(Lane& lane, int64_t cost, double seconds) {
  if (seconds <= 0) return;
  lane.cost_per_second_.Add(static_cast<double>(cost), seconds);
  helping_.Add(0, seconds);
  // A batch takes the time of its leader and of its helpers.
  lane.seconds_per_cost_ = (1 + helping_.value()) / lane.cost_per_second_.value() / options_.workers;
}

void Scheduler::Answer(Lane& lane, Job& job, absl::Status status) {
  Job::Payload payload;
  JobDone done;
  {
    const MutexLock lock(mutex_);
    if (!Settle(lane, job)) return;
    lane.queue_.Remove(job);
    UpdateWorkWaits();
    payload = job.TakePayload();
    done = std::move(job.done_);
  }
  std::move(done)(std::move(status));
}

bool Scheduler::Settle(Lane& lane, Job& job) {
  if (job.settled_.exchange(true, std::memory_order_relaxed)) return false;
  assert(job.done_ != nullptr && lane.unanswered_ > 0);
  if (--lane.unanswered_ == 0) settled_.NotifyAll();
  return true;
}

}  // namespace longembed
