#include "server/core/call_preparer.h"

#include <map>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"
#include "server/errors/errors.h"

namespace longembed {

int64_t PlanBytes(const Plan& plan) {
  const auto of = [](const auto& values) { return static_cast<int64_t>(values.capacity() * sizeof(values[0])); };
  int64_t bytes = of(plan.sequences) + of(plan.spans) + of(plan.parts);
  std::map<const std::shared_ptr<const RotaryTable>::element_type*, std::pair<long, long>>
      tables;  // Table -> (uses in this plan, uses in all).
  for (const PlannedSequence& planned : plan.sequences) {
    const Sequence& sequence = planned.sequence;
    bytes += of(sequence.tokens) + of(sequence.positions) + of(sequence.spans);
    for (const auto* table : {&sequence.rotary, &sequence.rotary_grouped, &sequence.rotary_shifted}) {
      if (*table == nullptr) continue;
      auto& [here, in_all] = tables[table->get()];
      ++here;
      in_all = table->use_count();
    }
  }
  for (const auto& [table, uses] : tables) {
    const bool only_here = uses.second <= uses.first + 1;  // One more use is the cache's (RotaryTableCache).
    if (only_here) bytes += of(table->cos) + of(table->sin);
  }
  return bytes;
}

absl::StatusOr<Plan> CallPreparer::Prepare(const absl::StatusOr<Input>& input) {
  const size_t index = index_++;
  if (!input.ok()) return input.status();
  absl::StatusOr<Plan> plan = PrepareInput(model_, *input, options_, tokenizer_.hold());
  if (absl::IsResourceExhausted(plan.status())) return call_status_ = plan.status();
  if (!plan.ok()) return AtField(plan.status(), absl::StrCat("inputs[", index, "]"));
  vectors_ += plan->vectors();
  run_tokens_ += plan->run_tokens();
  span_tokens_ += plan->span_tokens();
  const PlanLimits& limits = options_.plan.limits;
  if (vectors_ > limits.max_vectors) call_status_ = TooManyVectorsInCall(vectors_, limits.max_vectors);
  if (run_tokens_ > limits.max_run_tokens) call_status_ = TooManyRunTokensInCall(run_tokens_, limits.max_run_tokens);
  if (span_tokens_ > limits.max_run_tokens) call_status_ = TooManySpanTokensInCall(span_tokens_, limits.max_run_tokens);
  if (!call_status_.ok()) return call_status_;
  return plan;
}

}  // namespace longembed
