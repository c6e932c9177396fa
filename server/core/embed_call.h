// The server's one use case: a call is admitted by an estimate, its inputs are tokenized and planned on the worker
// pool, encoded by the model's scheduler, finished and handed back.
//
//   auto call = EmbedCall::Start(model, pool, clock, params, [](absl::StatusOr<EmbedAnswer> answer) {});
//   call->Cancel();   // When the client is gone.
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

// A request, checked and resolved.
struct EmbedParams {
  CallContext call;  // All that it refers to must live until `done` has been called.
  // At least one. The texts must live until `done` has been called. An error (with partial_results) stands in its
  // input's place in the answer.
  std::vector<absl::StatusOr<Input>> inputs;
  InputOptions input_options;
  VectorOptions vector_options;
  std::optional<int64_t> max_terms;  // Of sparse vectors (input_options.plan.sparse).
  Priority priority = Priority::kInteractive;
  bool partial_results = false;           // An input's error stands in its own result instead of failing the call.
  int64_t max_response_bytes = 64 << 20;  // Of vectors, by estimate.
  int bits_per_component = 32;            // Of the answer's encoding.
};

struct EmbeddedInput {
  std::vector<OutputVector> vectors;
  Plan plan;  // Its sequences' arrays are gone.
};

struct EmbedAnswer {
  std::vector<absl::StatusOr<EmbeddedInput>> results;  // In the order of the inputs. All ok without partial_results.
  absl::Duration tokenization;
  absl::Duration queue;  // For a thread that tokenizes, and then for the model.
  absl::Duration inference;
};

// Memory of a plan, in bytes: its sequences' arrays and tables, except tables that others share.
int64_t PlanBytes(const Plan& plan);

// Prepares the inputs of a call one after the other and keeps count: the plan's limits hold for the call as a whole.
class CallPreparer {
 public:
  // Both must outlive it.
  CallPreparer(const Model& model, const InputOptions& options) : model_(model), options_(options) {}

  // Errors of an input carry the field "inputs[i]", i counted from 0; those of the call, "inputs".
  absl::StatusOr<Plan> Prepare(const absl::StatusOr<Input>& input);

  // Error if the call as a whole exceeded a limit; partial results cannot avoid it.
  const absl::Status& call_status() const { return call_status_; }

 private:
  const Model& model_;
  const InputOptions& options_;
  size_t index_ = 0;
  int64_t vectors_ = 0;
  int64_t run_tokens_ = 0;
  absl::Status call_status_;
};

// Multiple threads can call Cancel without external synchronization.
class EmbedCall : public std::enable_shared_from_this<EmbedCall> {
 public:
  // Called exactly once, on a thread of the pool's or the scheduler's, on the one that cancels, or, when the call is
  // refused, within Start. Must not block.
  using Done = absl::AnyInvocable<void(absl::StatusOr<EmbedAnswer>) &&>;

  // Model, pool and clock must outlive the call.
  static std::shared_ptr<EmbedCall> Start(ServedModel& model, WorkerPool& pool, const Clock& clock, EmbedParams params,
                                          Done done);

  // `done` is called with CANCELLED soon, unless it has been called. Releases the call's permit at once.
  void Cancel();

 private:
  EmbedCall(ServedModel& model, WorkerPool& pool, const Clock& clock, EmbedParams params, Done done);

  // Estimates the resources of the call before anything is tokenized.
  ResourceRequest Estimate() const;
  int64_t MaxSequenceTokens() const;  // Tokens of one sequence under the call's options.
  void Admit();
  void OnAdmitted(std::shared_ptr<Permit> permit);
  void Prepare();
  // Makes the job's sequences. Running out of memory fails this call alone.
  absl::Status PlanSequences(std::vector<Sequence>& sequences);
  absl::Status PrepareInputs(std::vector<Sequence>& sequences);
  int64_t CountAnswered() const;  // Vectors of the answer.
  absl::Status CheckResponseSize() const;
  // Charges for the vectors and the answer made of them; for sparse ones by estimate, until SettleTerms.
  absl::Status HoldAnswer(const std::vector<Sequence>& sequences) const;
  int64_t ExpectedTerms(const std::vector<Sequence>& sequences) const;
  bool sparse() const { return params_.input_options.plan.sparse; }
  absl::Status Settle(const std::vector<Sequence>& sequences);
  // Updates the model's estimate of tokens per byte by the texts of this call.
  void UpdateTokensPerByte() const;
  void Submit(std::vector<Sequence> sequences);
  absl::StatusOr<std::shared_ptr<Job>> MakeJob(std::vector<Sequence> sequences);
  void Finish(absl::StatusOr<JobResult> result);
  absl::Status FinishInputs(JobResult& result);
  // Counts of what was encoded, for metrics and the trace.
  struct Tally {
    int64_t inputs = 0;
    int64_t tokens = 0;
    int64_t truncated_tokens = 0;
    std::map<std::string_view, int64_t> sequences;  // By positions method; "" is plain.

    void Add(const Plan& plan);
  };
  void Count(const Tally& tally) const;
  // Of a call that is traced.
  void TracePhase(const char* phase) const;
  // Charges for `terms` of the rows and as many of what is made of them.
  absl::Status HoldTerms(int64_t terms) const;
  // Corrects the charge for sparse vectors to their size. Errors: RESPONSE_TOO_LARGE.
  absl::Status SettleTerms() const;
  absl::Status CheckNotCancelled() const;

  ServedModel& model_;
  WorkerPool& pool_;
  const Clock& clock_;
  const EmbedParams params_;
  const int64_t bytes_;  // Of the texts to tokenize.
  Done done_;
  EmbedAnswer answer_;
  absl::Time admitted_;                        // When it was admitted.
  absl::Duration work_;                        // Once settled.
  absl::Time began_ = absl::InfiniteFuture();  // When its first batch was formed.

  std::atomic<bool> cancelled_ = false;
  Mutex mutex_;
  std::shared_ptr<Permit> permit_ ABSL_GUARDED_BY(mutex_);  // Until the job has it.
  std::weak_ptr<Job> job_ ABSL_GUARDED_BY(mutex_);          // Weak: the job's `done` holds this call.
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_CORE_EMBED_CALL_H_
