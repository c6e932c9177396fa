// Invariants of every plan under any options. They follow the definitions of model/plan/README.md, in slow and simple
// code.
#ifndef LONGEMBED_TESTS_FUZZ_PLAN_INVARIANTS_H_
#define LONGEMBED_TESTS_FUZZ_PLAN_INVARIANTS_H_

#include "model/manifest/manifest.h"
#include "model/plan/planner.h"

namespace longembed {

// Checks that the plan is within `options.limits` and the capacity, that its windows cover the content, that its
// positions are finite and within the model's table, and that its spans are inside the content. `overhead` is the
// number of special and prompt tokens of one sequence.
void ExpectPlan(const ModelManifest& model, const PlanOptions& options, int64_t overhead, const Plan& plan);

// Also checks that the plan's tokens are those of `input`, each in its place.
void ExpectTokens(const ModelManifest& model, const InputTokens& input, const Plan& plan);

// Checks that two plans of one input have bit-identical arrays.
void ExpectSamePlan(const Plan& one, const Plan& other);

}  // namespace longembed

#endif  // LONGEMBED_TESTS_FUZZ_PLAN_INVARIANTS_H_
