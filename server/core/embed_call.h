// A call that embeds texts. It is admitted by an estimate, tokenized and planned on the worker pool, encoded by the
// model's scheduler, and answered.
//
//   auto call = EmbedCall::Start(model, pool, clock, params, [](absl::StatusOr<EmbedAnswer> answer) {});
//   call->Cancel();   // When the client has gone away.
#ifndef LONGEMBED_SERVER_CORE_EMBED_CALL_H_
#define LONGEMBED_SERVER_CORE_EMBED_CALL_H_

#include <atomic>
#include <map>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "model/embed/pipeline.h"
#include "server/admission/admission.h"
#include "server/batching/job.h"
#include "server/core/operation.h"
#include "server/core/served_model.h"
#include "server/core/worker_pool.h"
#include "system/clock.h"
#include "system/mutex.h"

namespace longembed {

// A request after checks and with its defaults resolved.
struct EmbedParams {
  CallContext call;  // All that it refers to must live until `done` has been called.
  // At least one. The texts must live until `done` has been called. With partial_results an error takes the place of
  // its input in the answer.
  std::vector<absl::StatusOr<Input>> inputs;
  InputOptions input_options;
  VectorOptions vector_options;
  std::optional<int64_t> max_terms;  // For sparse vectors (input_options.plan.sparse).
  Priority priority = Priority::kInteractive;
  bool partial_results = false;           // An input's error becomes its result instead of failing the call.
  int64_t max_response_bytes = 64 << 20;  // Limit for the estimated size of the vectors.
  int bits_per_component = 32;            // In the answer's encoding.
};

struct EmbeddedInput {
  std::vector<OutputVector> vectors;
  Plan plan;  // Without the arrays of its sequences, which moved to the job.
};

struct EmbedAnswer {
  std::vector<absl::StatusOr<EmbeddedInput>> results;  // In the order of the inputs. All ok without partial_results.
  absl::Duration tokenization;
  absl::Duration queue;  // Wait for a tokenizing thread, and then for the model.
  absl::Duration inference;
};

// Returns the memory of a plan in bytes: the arrays and tables of its sequences, without tables that others share.
int64_t PlanBytes(const Plan& plan);

// Prepares the inputs of a call one by one and applies the plan's limits to the call as a whole.
class CallPreparer {
 public:
  // Both arguments must outlive the preparer.
  CallPreparer(const Model& model, const InputOptions& options) : model_(model), options_(options) {}

  // Plans an input. Errors of an input carry the field "inputs[i]", counted from 0; those of the whole call carry
  // "inputs".
  absl::StatusOr<Plan> Prepare(const absl::StatusOr<Input>& input);

  // Returns an error if the call as a whole exceeded a limit. It fails the call even with partial results.
  const absl::Status& call_status() const { return call_status_; }

 private:
  const Model& model_;
  const InputOptions& options_;
  size_t index_ = 0;
  int64_t vectors_ = 0;
  int64_t run_tokens_ = 0;
  absl::Status call_status_;
};

// One call. Multiple threads can call Cancel without external synchronization.
class EmbedCall : public std::enable_shared_from_this<EmbedCall> {
 public:
  // Called exactly once: on a thread of the pool or of the scheduler, on the thread that cancels, or within Start if
  // the call is rejected. Must not block.
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
  int64_t MaxSequenceTokens() const;  // Limit of one sequence with the call's options.
  void Admit();
  void OnAdmitted(std::shared_ptr<Permit> permit);
  void Prepare();
  // Plans the sequences of the job. Running out of memory fails this call only.
  absl::Status PlanSequences(std::vector<Sequence>& sequences);
  absl::Status PrepareInputs(std::vector<Sequence>& sequences);
  int64_t CountAnswered() const;  // Number of vectors in the answer.
  absl::Status CheckResponseSize() const;
  // Reserves memory for the vectors and the answer. The size of sparse vectors is an estimate until SettleTerms.
  absl::Status HoldAnswer(const std::vector<Sequence>& sequences) const;
  int64_t ExpectedTerms(const std::vector<Sequence>& sequences) const;
  bool sparse() const { return params_.input_options.plan.sparse; }
  absl::Status Settle(const std::vector<Sequence>& sequences);
  // Updates the model's estimate of tokens per byte with the texts of this call.
  void UpdateTokensPerByte() const;
  void Submit(std::vector<Sequence> sequences);
  absl::StatusOr<std::shared_ptr<Job>> MakeJob(std::vector<Sequence> sequences);
  void Finish(absl::StatusOr<JobResult> result);
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
  // Reserves memory for `terms` terms in the rows and as many in the answer.
  absl::Status HoldTerms(int64_t terms) const;
  // Corrects the reservation for sparse vectors to their actual size. Errors: RESPONSE_TOO_LARGE.
  absl::Status SettleTerms() const;
  absl::Status CheckNotCancelled() const;

  ServedModel& model_;
  WorkerPool& pool_;
  const Clock& clock_;
  const EmbedParams params_;
  const int64_t bytes_;  // Bytes of text to tokenize.
  Done done_;
  EmbedAnswer answer_;
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
