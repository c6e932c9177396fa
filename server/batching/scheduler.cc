#include "server/batching/scheduler.h"

#include <algorithm>
#include <utility>

#include "server/errors/errors.h"

namespace longembed {

Scheduler::Scheduler(SchedulerOptions options, Encoder& encoder, const Clock& clock, SchedulerObserver* observer)
    : options_(std::move(options)), encoder_(encoder), clock_(clock), observer_(observer) {
  for (int i = 0; i < options_.workers; ++i) workers_.emplace_back([this] { RunWorker(); });
}

Scheduler::~Scheduler() {
  std::vector<std::shared_ptr<Job>> left;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    left = queue_.TakeExpired(absl::InfiniteFuture());
  }
  work_arrived_.notify_all();
  for (const std::shared_ptr<Job>& job : left) Answer(job, ServerDraining());
  workers_.clear();  // Joins.
}

absl::Status Scheduler::Submit(std::shared_ptr<Job> job) {
  const absl::Time now = clock_.Now();
  const std::lock_guard lock(mutex_);
  if (stopping_) return ServerDraining();
  if (job->options_.deadline <= now) return DeadlineExceeded();
  // A job that is larger than the whole limit still runs when nothing waits before it.
  if (!queue_.empty() && queue_.tokens() + job->tokens() > options_.max_queued_tokens) {
    return Overloaded(queue_.tokens(), options_.max_queued_tokens, ExpectedWait());
  }
  ++unanswered_;
  queue_.Push(std::move(job), now);
  work_arrived_.notify_one();
  return absl::OkStatus();
}

void Scheduler::Cancel(Job& job) {
  JobDone done;
  {
    const std::lock_guard lock(mutex_);
    if (!Settle(job)) return;
    queue_.Remove(job);
    done = std::move(job.done_);
  }
  std::move(done)(CallCancelled());
}

bool Scheduler::WaitIdle(absl::Duration timeout) {
  std::unique_lock lock(mutex_);
  const auto idle = [this] { return unanswered_ == 0; };
  if (timeout == absl::InfiniteDuration()) {
    idle_.wait(lock, idle);
    return true;
  }
  return idle_.wait_for(lock, absl::ToChronoNanoseconds(timeout), idle);
}

QueueState Scheduler::queue_state() const {
  const absl::Time now = clock_.Now();
  const std::lock_guard lock(mutex_);
  return {.jobs = queue_.jobs(),
          .tokens = queue_.tokens(),
          .oldest = queue_.empty() ? absl::ZeroDuration() : now - queue_.oldest()};
}

void Scheduler::RunWorker() {
  if (options_.initialize_worker) options_.initialize_worker();
  while (true) {
    std::vector<std::shared_ptr<Job>> expired;
    Batch batch;
    {
      std::unique_lock lock(mutex_);
      work_arrived_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (stopping_) return;
      expired = queue_.TakeExpired(clock_.Now());
      batch = queue_.TakeBatch(options_.batch);
      // One notification a job would leave workers asleep while a job of many sequences waits.
      if (!queue_.empty()) work_arrived_.notify_one();
    }
    for (const std::shared_ptr<Job>& job : expired) Answer(job, DeadlineExceeded());
    if (!batch.empty()) EncodeBatch(batch);
  }
}

void Scheduler::EncodeBatch(const Batch& batch) {
  std::vector<const Sequence*> sequences;
  int64_t tokens = 0;
  for (const BatchItem& item : batch) {
    sequences.push_back(&item.job->sequences_[item.sequence]);
    tokens += sequences.back()->size();
  }
  const absl::Time started = clock_.Now();
  if (observer_ != nullptr) {
    for (const BatchItem& item : batch) observer_->OnDequeued(started - item.job->enqueued_);
  }
  const absl::StatusOr<VectorBlock> vectors = encoder_.Encode(Pack(sequences), [&] { return NobodyWaits(batch); });
  const absl::Time finished = clock_.Now();

  if (!vectors.ok()) {
    for (const BatchItem& item : batch) {
      const bool late = item.job->options_.deadline <= finished;
      Answer(item.job, late ? DeadlineExceeded() : vectors.status());
    }
    return;
  }
  if (observer_ != nullptr) observer_->OnBatch(tokens, batch.size(), finished - started);
  for (const std::shared_ptr<Job>& job : Deliver(batch, *vectors, started, finished)) {
    std::move(job->done_)(std::move(job->result_));
  }
}

bool Scheduler::NobodyWaits(const Batch& batch) const {
  const absl::Time now = clock_.Now();
  return std::all_of(batch.begin(), batch.end(), [now](const BatchItem& item) {
    return item.job->settled() || item.job->options_.deadline <= now;
  });
}

std::vector<std::shared_ptr<Job>> Scheduler::Deliver(const Batch& batch, const VectorBlock& vectors, absl::Time started,
                                                     absl::Time finished) {
  std::vector<std::shared_ptr<Job>> complete;
  const std::lock_guard lock(mutex_);
  const double seconds = absl::ToDoubleSeconds(finished - started);
  int64_t tokens = 0;
  int row = 0;
  const Job* previous = nullptr;
  for (const BatchItem& item : batch) {
    Job& job = *item.job;
    const Sequence& sequence = job.sequences_[item.sequence];
    tokens += sequence.size();
    for (size_t i = 0; i < sequence.spans.size(); ++i, ++row) {
      const std::span<const float> values = vectors.row(row);
      if (!job.settled())
        job.result_.vectors[job.first_vector_[item.sequence] + i].assign(values.begin(), values.end());
    }
    job.result_.queue = std::max(job.result_.queue, started - job.enqueued_);
    if (&job != previous) job.result_.inference += finished - started;
    previous = &job;  // The sequences of a job stand together in a batch.
    if (--job.unfinished_ == 0 && Settle(job)) complete.push_back(item.job);
  }
  if (seconds > 0) {
    const double rate = static_cast<double>(tokens) / seconds;
    tokens_per_second_ = tokens_per_second_ == 0 ? rate : 0.9 * tokens_per_second_ + 0.1 * rate;
  }
  return complete;
}

void Scheduler::Answer(const std::shared_ptr<Job>& job, absl::Status status) {
  {
    const std::lock_guard lock(mutex_);
    if (!Settle(*job)) return;
    queue_.Remove(*job);
  }
  std::move(job->done_)(std::move(status));
}

bool Scheduler::Settle(Job& job) {
  if (job.settled_.exchange(true, std::memory_order_relaxed)) return false;
  if (--unanswered_ == 0) idle_.notify_all();
  return true;
}

absl::Duration Scheduler::ExpectedWait() const {
  constexpr absl::Duration kUnknown = absl::Seconds(1);
  if (tokens_per_second_ == 0) return kUnknown;
  const double rate = tokens_per_second_ * options_.workers;
  return std::clamp(absl::Seconds(static_cast<double>(queue_.tokens()) / rate), absl::Milliseconds(50),
                    absl::Seconds(60));
}

}  // namespace longembed
