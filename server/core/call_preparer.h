// Plans the inputs of a call.
#ifndef LONGEMBED_SERVER_CORE_CALL_PREPARER_H_
#define LONGEMBED_SERVER_CORE_CALL_PREPARER_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/embed/pipeline.h"
#include "server/admission/ledger.h"
#include "server/core/tokenizer_memory.h"

namespace longembed {

// Returns the memory of a plan in bytes: the arrays and tables of its sequences, without tables that other plans share.
int64_t PlanBytes(const Plan& plan);

// Prepares the inputs of a call one by one and applies the plan's limits to the call as a whole.
class CallPreparer {
 public:
  // The arguments must outlive the preparer. `memory` holds what the tokenizer takes, until the preparer is destroyed.
  CallPreparer(const Model& model, const InputOptions& options, Charge& memory)
      : model_(model), options_(options), tokenizer_(memory) {}

  // Plans an input. Errors of an input carry the field "inputs[i]", counted from 0; those of the whole call carry
  // "inputs", and those of Charge::Hold none.
  absl::StatusOr<Plan> Prepare(const absl::StatusOr<Input>& input);

  // Returns an error if the call as a whole exceeded a limit or found no memory. It fails the call even with partial
  // results.
  const absl::Status& call_status() const { return call_status_; }

 private:
  const Model& model_;
  const InputOptions& options_;
  TokenizerMemory tokenizer_;
  size_t index_ = 0;
  int64_t vectors_ = 0;
  int64_t run_tokens_ = 0;
  int64_t span_tokens_ = 0;
  absl::Status call_status_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_CORE_CALL_PREPARER_H_
