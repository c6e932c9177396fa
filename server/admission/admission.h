// Admission to the queue of a device. A call is admitted by an estimate before it is tokenized. Its reservation is
// settled when its tokens are known, and released as its sequences reach the encoder.
//
//   Admission admission({.max_wait = absl::Seconds(10)}, clock);
//   auto permit = admission.Admit(model, {.client = "a", .tokens = 500, .work = absl::Milliseconds(50)});
//   if (!permit.ok()) return permit.status();   // Overloaded, with a retry delay.
//   absl::Status status = (*permit)->Settle(tokens, work, /*oversized=*/false);   // After tokenizing.
//   job_options.permit = *permit;   // The queue releases it, sequence by sequence.
//
// Work is measured in seconds of the whole device. Four bounds hold:
// * tokens that wait for a model; bulk work is admitted while at most half of them are taken;
// * the tokens of long calls that are not charged for (below), which are memory all the same: kUncharged times as many;
// * the expected wait: the work that would run before a call, of its own priority and above;
// * a client's fair share (fair_share.h) of the tokens and of the wait.
// The expected wait is that work over the pace at which such work has left the queue in the last seconds, as long as
// there was any: estimates that are off, or a machine that others use too, correct themselves.
//
// A call of much work is charged for no more than an eighth of the wait, and its tokens in proportion, until its last
// sequence has left the queue: its sequences interleave with those of others (BatchQueue), which it does not hold up.
// There can be eight such calls at a time.
//
// A call with a deadline is admitted only if it would be done in time behind those that are due before it. It is
// charged for all of its work, because it does not interleave: the order keeps what admission promised.
//
// Work that oversized sequences (batching/cost_model.h) wait for does not count for others: they run beside them.
// Oversized sequences do not interleave with each other, so an oversized sequence is charged for all of its work.
//
// Fairness in time: every client has a virtual clock, which runs ahead of the real one by the work that the client
// has waiting, times the number of clients that have any. A call's start is its client's clock; the queue orders by it,
// so that a client with little work goes before one with much. A call with a deadline is due when its work would be
// done, by that clock.
#ifndef LONGEMBED_SERVER_ADMISSION_ADMISSION_H_
#define LONGEMBED_SERVER_ADMISSION_ADMISSION_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/batching/decayed_ratio.h"
#include "server/batching/job.h"
#include "server/errors/errors.h"
#include "system/clock.h"
#include "system/mutex.h"

namespace longembed {

struct AdmissionOptions {
  absl::Duration max_wait = absl::Seconds(10);       // For interactive work.
  absl::Duration max_bulk_wait = absl::Seconds(60);  // For bulk.
  // Fraction of max_wait and max_bulk_wait at which calls are rejected; the rest is headroom for estimation error.
  double reject_fraction = 1;
};

// One model's tokens. Guarded by the admission's lock.
class ModelBudget {
 public:
  explicit ModelBudget(int64_t max_queued_tokens) : max_tokens_(max_queued_tokens) {}

 private:
  friend class Admission;
  const int64_t max_tokens_;
  int64_t tokens_ = 0;
  int64_t uncharged_tokens_ = 0;
  std::map<std::string, int64_t> client_tokens_;  // Of clients that have any.
};

// The resources that a call asks for.
struct ResourceRequest {
  std::string client;             // Any string that identifies the client.
  int64_t max_client_tokens = 0;  // Limit of all tokens of the client; 0 = none.
  Priority priority = Priority::kInteractive;
  bool oversized = false;
  int64_t tokens = 0;
  absl::Duration work;
  absl::Time deadline = absl::InfiniteFuture();
  absl::Duration tokenization;  // Time until it is ready for the queue, the wait for a thread included.
};

// Resources held by a call: all of its tokens, and the part that it is charged for.
struct Reservation {
  int64_t all_tokens = 0;
  int64_t tokens = 0;
  absl::Duration work;

  int64_t uncharged_tokens() const { return all_tokens - tokens; }
};

class Admission;

// A call's permit to be in the queue. Releases everything still held when destroyed. Thread-safe.
class Permit final : public QueuePermit {
 public:
  ~Permit() override;
  Permit(const Permit&) = delete;
  Permit& operator=(const Permit&) = delete;

  // Replaces the estimate. Errors, unless it `must_fit`: RESOURCE_EXHAUSTED when the difference finds no room among the
  // model's tokens, or the call would be late; then the permit holds nothing.
  absl::Status Settle(int64_t tokens, absl::Duration work, bool oversized, bool must_fit = false);

  // Start of the call by its client's clock.
  absl::Time start() const { return start_; }
  // Due time by that clock if the call has a deadline; else InfiniteFuture. After Settle.
  absl::Time due() const { return request_.deadline == absl::InfiniteFuture() ? absl::InfiniteFuture() : due_; }

  // Releases what sequences that left the queue held.
  void Release(int64_t tokens, absl::Duration work, bool runs) override;
  // Releases everything still held.
  void ReleaseAll() { Release(std::numeric_limits<int64_t>::max(), absl::ZeroDuration(), /*runs=*/false); }

 private:
  friend class Admission;
  Permit(Admission& admission, ModelBudget& model, const ResourceRequest& request)
      : admission_(admission), model_(model), request_(request) {}

  Admission& admission_;
  ModelBudget& model_;
  // Guarded by the admission's lock.
  ResourceRequest request_;
  bool settled_ = false;
  Reservation whole_;  // Before anything was released.
  Reservation held_;
  absl::Time start_;
  absl::Time due_;  // As BatchQueue orders it.
};

// Multiple threads can use one Admission without external synchronization. Its lock is taken inside the scheduler's.
class Admission {
 public:
  // `clock` must outlive it.
  Admission(const AdmissionOptions& options, const Clock& clock) : options_(options), clock_(clock) {}

  // Errors: RESOURCE_EXHAUSTED (errors.h), which names the bound and when to try again. The budget must outlive the
  // permit. A call that finds its model's queue empty is admitted whatever its size.
  absl::StatusOr<std::shared_ptr<Permit>> Admit(ModelBudget& model, const ResourceRequest& request);

  // Expected wait of a new interactive call, short or oversized.
  absl::Duration expected_wait() const;

 private:
  friend class Permit;
  static constexpr int kUncharged = 4;
  static constexpr absl::Duration kDueStep = absl::Milliseconds(20);

  struct Client {
    int64_t all_tokens = 0;
    absl::Duration work;
    int permits = 0;
    absl::Time clock = absl::InfinitePast();
  };
  struct Decision {
    Overload reason;
    bool refused = false;
  };

  Decision Decide(const ModelBudget& model, const ResourceRequest& request, const Reservation& wanted) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static bool Waits(const ModelBudget& model) { return model.tokens_ > 0; }
  static int64_t MaxTokens(const ModelBudget& model, Priority priority);
  static bool TokensFit(const ModelBudget& model, Priority priority, const Reservation& wanted);
  absl::Duration WorkBefore(Priority priority, bool oversized) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Wait for the work that is due before a call that would begin at `start`, by its client's clock.
  absl::Duration WaitOf(const ResourceRequest& request, absl::Time start) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether a call with a deadline would be late behind `wait`.
  bool IsLate(const ResourceRequest& request, absl::Duration wait) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Time StartOf(const Client& client, absl::Duration held) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Duration WaitBefore(Priority priority, bool oversized) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Reservation Charge(const ResourceRequest& request) const;
  void MeasurePace(absl::Duration left) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Refuse(Overload reason, const ModelBudget& model, const ResourceRequest& request)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Hold(Permit& permit, const Reservation& more) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ReleasePart(Permit& permit, Reservation part) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Adds the reservation to every sum, or takes it out of them.
  void Count(const Permit& permit, const Reservation& reservation, int sign) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The order of BatchQueue: by the time their work would be done; without a deadline, by start plus kMaxDeadlineSlack.
  static absl::Time DueOf(const ResourceRequest& request, absl::Time start);
  void CountDue(const Permit& permit, absl::Duration more) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Time AdvanceClock(Client& client, absl::Duration work) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Advances the client's clock by the work that one of its calls has beyond the estimate.
  void CorrectClock(const std::string& name, absl::Duration more) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Work per time: 1 when the estimates of work are right.
  double pace() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return std::clamp(pace_.value(), 0.05, 20.0); }
  absl::Duration MaxWait(Priority priority) const {
    return priority == Priority::kInteractive ? options_.max_wait : options_.max_bulk_wait;
  }
  absl::Duration Budget(Priority priority) const { return options_.reject_fraction * MaxWait(priority); }

  const AdmissionOptions options_;
  const Clock& clock_;

  mutable Mutex mutex_;
  std::array<std::array<absl::Duration, 2>, 2> work_ ABSL_GUARDED_BY(mutex_);  // [priority][oversized]
  // Work of calls that are not oversized, by due time, rounded down to kDueStep.
  std::array<std::map<absl::Time, absl::Duration>, 2> due_work_ ABSL_GUARDED_BY(mutex_);  // [priority]
  std::map<std::string, Client> clients_ ABSL_GUARDED_BY(mutex_);                         // Clients with permits.
  uint32_t jitter_ ABSL_GUARDED_BY(mutex_) = 1;

  // The part of work_ that is tokenized and not oversized: the scheduler's.
  absl::Duration ready_work_ ABSL_GUARDED_BY(mutex_);
  // Work that left the queue to run, per second, without oversized sequences.
  DecayedRatio pace_ ABSL_GUARDED_BY(mutex_){/*memory=*/2, /*assumed=*/1};
  absl::Time last_left_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();  // InfinitePast: the queue was empty.
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_ADMISSION_ADMISSION_H_
