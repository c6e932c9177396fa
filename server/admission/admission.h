// Decides whether a call may enter the queue of a device. A call is admitted by an estimate before it is tokenized. Its
// reservation is settled when its tokens are known, and released as its sequences reach the encoder.
//
//   Admission admission({.max_wait = absl::Seconds(10)}, clock);
//   auto permit = admission.Admit(model, {.client = "a", .tokens = 500, .work = absl::Milliseconds(50)});
//   if (!permit.ok()) return permit.status();   // Overloaded, with a retry delay.
//   absl::Status status = (*permit)->Settle(tokens, work, /*oversized=*/false);   // After tokenizing.
//   job_options.permit = *permit;   // The queue releases it, sequence by sequence.
//
// Work is measured in seconds of the whole device. Four bounds apply:
// * A model's waiting tokens, of all calls together. For a bulk call the bound is half as high.
// * The uncharged tokens of long calls (below), which use memory too: kUncharged times the bound on tokens. One such
// call alone may have any number of them.
// * The expected wait: the time until the work that runs before a call, of its own priority and above, is done.
// * A client's fair share (fair_share.h) of the tokens and of the wait.
// The expected wait is that work divided by the pace. The pace is the rate at which such work has left the queue in the
// last few seconds, measured only while there was work. It thus corrects for wrong estimates and for a machine that is
// shared with other processes.
//
// A call with much work is charged for at most an eighth of the allowed wait, and for its tokens in proportion, until
// its last sequence has left the queue. Its sequences interleave with those of other calls (BatchQueue), so it does not
// hold them up. About eight such calls fit into the wait.
//
// A call with a deadline is admitted only if it would be done in time after the calls that are due before it, whichever
// model they are for. It is charged for all of its work, because it does not interleave: the queue keeps the order that
// admission assumed.
//
// Work of oversized sequences (batching/cost_model.h) does not count toward the wait of other calls, which run at the
// same time. Oversized sequences do not interleave with each other, so an oversized call is charged for all of its
// work.
//
// Fairness over time: every client has a virtual clock. It runs ahead of real time by the work that the client has
// waiting, times the number of clients with permits. A call's start is the time of its client's clock when it is
// admitted. The queue orders calls by it, so that a client with little work goes before one with much. A call with a
// deadline is due when its work would be done by that clock.
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

// The waiting tokens of one model. Guarded by the admission's lock.
class ModelBudget {
 public:
  explicit ModelBudget(int64_t max_queued_tokens) : max_tokens_(max_queued_tokens) {}

 private:
  friend class Admission;
  const int64_t max_tokens_;
  int64_t tokens_ = 0;
  int64_t uncharged_tokens_ = 0;
  std::map<std::string, int64_t> client_tokens_;  // Only clients that have tokens.
};

// The resources that a call requests.
struct ResourceRequest {
  std::string client;             // Any string that identifies the client.
  int64_t max_client_tokens = 0;  // Limit for all tokens of the client; 0 = none.
  Priority priority = Priority::kInteractive;
  bool oversized = false;
  int64_t tokens = 0;
  absl::Duration work;
  absl::Time deadline = absl::InfiniteFuture();
  absl::Duration tokenization;  // Time until the call is ready for the queue, including the wait for a thread.
};

// Resources that a call holds: all of its tokens, and the part of tokens and work that it is charged for.
struct Reservation {
  int64_t all_tokens = 0;
  int64_t tokens = 0;
  absl::Duration work;

  int64_t uncharged_tokens() const { return all_tokens - tokens; }
};

class Admission;

// A call's permit to be in the queue. Releases everything that it still holds when destroyed. Thread-safe.
class Permit final : public QueuePermit {
 public:
  ~Permit() override;
  Permit(const Permit&) = delete;
  Permit& operator=(const Permit&) = delete;

  // Replaces the estimate with the exact cost. Errors: RESOURCE_EXHAUSTED if the increase does not fit the model's
  // tokens, or if the call would be late; the permit then holds nothing. With `must_fit` it does not fail.
  absl::Status Settle(int64_t tokens, absl::Duration work, bool oversized, bool must_fit = false);

  // Returns the start of the call by its client's clock.
  absl::Time start() const { return start_; }
  // Returns the due time by that clock if the call has a deadline, else InfiniteFuture. REQUIRES: Settle has succeeded.
  absl::Time due() const { return request_.deadline == absl::InfiniteFuture() ? absl::InfiniteFuture() : due_; }

  // Releases the reservation's share for sequences that left the queue.
  void Release(int64_t tokens, absl::Duration work, std::optional<absl::Time> batch) override;
  // Releases everything that the permit still holds.
  void ReleaseAll() { Release(std::numeric_limits<int64_t>::max(), absl::ZeroDuration(), /*batch=*/std::nullopt); }

 private:
  friend class Admission;
  // Returns what to release for `part` of the tokens that are held, but not for all of them.
  Reservation ShareOf(int64_t part) const;
  Permit(Admission& admission, ModelBudget& model, const ResourceRequest& request)
      : admission_(admission), model_(model), request_(request) {}

  Admission& admission_;
  ModelBudget& model_;
  // Guarded by the admission's lock. The deadline and start_ never change after Admit, and due_ does not after Settle,
  // so they are then read without it.
  ResourceRequest request_;
  bool settled_ = false;
  Reservation whole_;  // The reservation before anything was released.
  Reservation held_;
  absl::Time start_;
  absl::Time due_;  // The due time that BatchQueue orders by.
};

// Admits calls and accounts for their reservations. Multiple threads can use one Admission without external
// synchronization. A thread may take the admission's lock while it holds the scheduler's lock, but not the other way
// round.
class Admission {
 public:
  // `clock` must outlive the admission.
  Admission(const AdmissionOptions& options, const Clock& clock) : options_(options), clock_(clock) {}

  // Reserves the request's resources. Errors: RESOURCE_EXHAUSTED (errors.h), which names the bound and a retry delay.
  // `model` must outlive the permit. A call is admitted whatever its size if its model's queue is empty, unless the
  // work of other models would make it late.
  absl::StatusOr<std::shared_ptr<Permit>> Admit(ModelBudget& model, const ResourceRequest& request);

  // Returns the expected wait of a new oversized interactive call. That of a short one is no longer.
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
  static int64_t MaxTokens(const ModelBudget& model, Priority priority);
  static bool TokensFit(const ModelBudget& model, Priority priority, const Reservation& wanted);
  absl::Duration WorkBefore(Priority priority, bool oversized) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Returns the wait for the work that is due before a call that starts at `start` by its client's clock.
  absl::Duration WaitOf(const ResourceRequest& request, absl::Time start) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Returns whether a call with a deadline would be late after a wait of `queue` in the device's queue. If its model's
  // queue is empty, the call's own work does not count: running it measures the model's speed.
  bool IsLate(const ModelBudget& model, const ResourceRequest& request, absl::Duration queue) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Time StartOf(const Client& client, absl::Duration held) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Duration WaitBefore(Priority priority, bool oversized) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Reservation Charge(const ResourceRequest& request) const;
  // Measures the pace by work that left the queue in the batch of this time.
  void MeasurePace(absl::Duration left, absl::Time batch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Refuse(Overload reason, const ModelBudget& model, const ResourceRequest& request)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Hold(Permit& permit, const Reservation& more) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ReleasePart(Permit& permit, Reservation part) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Adds the reservation to every sum (`sign` +1), or subtracts it (-1).
  void Count(const Permit& permit, const Reservation& reservation, int sign) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Returns the time by which BatchQueue orders a call: `start` plus its work if it has a deadline, else `start` plus
  // kMaxDeadlineSlack.
  static absl::Time DueOf(const ResourceRequest& request, absl::Time start);
  void CountDue(const Permit& permit, absl::Duration more) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Time AdvanceClock(Client& client, absl::Duration work) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Advances the client's clock by the work of one of its calls that exceeds the estimate.
  void CorrectClock(const std::string& name, absl::Duration more) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Returns estimated work done per unit of time, which is 1 if the estimates are right.
  double pace() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return std::clamp(pace_.value(), 0.05, 20.0); }
  absl::Duration MaxWait(Priority priority) const {
    return priority == Priority::kInteractive ? options_.max_wait : options_.max_bulk_wait;
  }
  absl::Duration Budget(Priority priority) const { return options_.reject_fraction * MaxWait(priority); }

  const AdmissionOptions options_;
  const Clock& clock_;

  mutable Mutex mutex_;
  std::array<std::array<absl::Duration, 2>, 2> work_ ABSL_GUARDED_BY(mutex_);  // [priority][oversized]
  // Work of calls that are not oversized, by their due time rounded down to kDueStep.
  std::array<std::map<absl::Time, absl::Duration>, 2> due_work_ ABSL_GUARDED_BY(mutex_);  // [priority]
  std::map<std::string, Client> clients_ ABSL_GUARDED_BY(mutex_);                         // Clients with permits.
  uint32_t jitter_ ABSL_GUARDED_BY(mutex_) = 1;

  // The part of work_ whose calls are tokenized, and thus in the scheduler's queue, and not oversized.
  absl::Duration ready_work_ ABSL_GUARDED_BY(mutex_);
  // Work that left the queue to run, per second, without oversized sequences.
  DecayedRatio pace_ ABSL_GUARDED_BY(mutex_){/*memory=*/2, /*assumed=*/1};
  // Times of the first and of the last batch since the queue was last empty; InfinitePast if it has been empty since.
  absl::Time first_left_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  absl::Time last_left_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_ADMISSION_ADMISSION_H_
