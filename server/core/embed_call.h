// A call that embeds texts. It is admitted by an estimate, tokenized and planned on the worker pool, encoded by the
// model's scheduler, and answered. A large answer is finished on the worker pool: on the scheduler's thread, the time
// would count as the encoder's.
//
//   auto call = EmbedCall::Start(model, pool, clock, params, [](absl::StatusOr<EmbedAnswer> answer) {});
//   call->Cancel();   // When the client has gone away.
#ifndef LONGEMBED_SERVER_CORE_EMBED_CALL_H_
#define LONGEMBED_SERVER_CORE_EMBED_CALL_H_

#include <atomic>
#include <map>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/admission/admission.h"
#include "server/batching/job.h"
#include "server/core/answer_memory.h"
#include "server/core/embed_params.h"
#include "server/core/served_model.h"
#include "server/core/worker_pool.h"
#include "system/clock.h"
#include "system/mutex.h"

namespace longembed {

// One call. Multiple threads can call Cancel without external synchronization.
class EmbedCall : public std::enable_shared_from_this<EmbedCall> {
 public:
  // Called exactly once: on a thread of the pool or of the scheduler, on the thread that cancels the call or gives the
  // model up (ServedModel::GiveUp), or within Start if the call is rejected. Must not block.
  using Done = absl::AnyInvocable<void(absl::StatusOr<EmbedAnswer>) &&>;

  // Starts a call. `model`, `pool` and `clock` must outlive it.
  static std::shared_ptr<EmbedCall> Start(ServedModel& model, WorkerPool& pool, const Clock& clock, EmbedParams params,
                                          Done done);

  // Cancels the call and releases its permit at once. `done` is soon called with CANCELLED, unless it has been called.
  void Cancel();

 private:
  EmbedCall(ServedModel& model, WorkerPool& pool, const Clock& clock, EmbedParams params, Done done);

  // Estimates the resources of the call before anything is tokenized.
  ResourceRequest Estimate() const;
  int64_t MaxSequenceTokens() const;              // Limit of one sequence with the call's options.
  int64_t CalibrationCost(int64_t tokens) const;  // Estimated additional cost of a sequence with this many tokens.
  void Admit();
  void OnAdmitted(std::shared_ptr<Permit> permit);
  void Prepare();
  // Plans the sequences of the job. Running out of memory fails this call only.
  absl::Status PlanSequences(std::vector<Sequence>& sequences);
  absl::Status PrepareInputs(std::vector<Sequence>& sequences);
  bool sparse() const { return params_.input_options.plan.sparse; }
  absl::Status Settle(const std::vector<Sequence>& sequences);
  // Updates the model's estimate of tokens per byte with the texts of this call.
  void UpdateTokensPerByte() const;
  void Submit(std::vector<Sequence> sequences);
  absl::StatusOr<std::shared_ptr<Job>> MakeJob(std::vector<Sequence> sequences);
  // Called by the scheduler when the job has ended.
  void OnEncoded(absl::StatusOr<JobResult> result);
  void Finish(JobResult result);
  absl::Status FinishInputs(JobResult& result);
  // Counts of what was encoded, for metrics and for the trace.
  struct Tally {
    int64_t inputs = 0;
    int64_t tokens = 0;
    int64_t truncated_tokens = 0;
    std::map<std::string_view, int64_t> sequences;  // Positions method -> sequences; "" is plain.

    void Add(const Plan& plan);
  };
  void Count(const Tally& tally) const;
  // Begins a phase in the call's trace, if it is traced.
  void TracePhase(const char* phase) const;
  absl::Status CheckNotCancelled() const;

  ServedModel& model_;
  WorkerPool& pool_;
  const Clock& clock_;
  const EmbedParams params_;
  const int64_t bytes_;  // Bytes to tokenize, prompts included.
  Done done_;
  EmbedAnswer answer_;
  const AnswerMemory answer_memory_;
  absl::Time admitted_;                        // Time of admission.
  absl::Duration work_;                        // Known once the permit is settled.
  absl::Time began_ = absl::InfiniteFuture();  // Time when the first batch was formed.

  std::atomic<bool> cancelled_ = false;
  Mutex mutex_;
  std::shared_ptr<Permit> permit_ ABSL_GUARDED_BY(mutex_);  // Moves to the job.
  std::weak_ptr<Job> job_ ABSL_GUARDED_BY(mutex_);          // Weak, because the job's `done` holds this call.
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_CORE_EMBED_CALL_H_
