// Invariants of every plan, under any options: the definitions of model/plan/README.md, in slow and plain code.
#ifndef LONGEMBED_TESTS_FUZZ_PLAN_INVARIANTS_H_
#define LONGEMBED_TESTS_FUZZ_PLAN_INVARIANTS_H_

#include "model/manifest/manifest.h"
#include "model/plan/planner.h"

namespace longembed {

// The plan is within `options.limits` and the capacity, its windows cover the content, its positions are finite and
// within the model's table, its spans lie inside. `overhead`: special tokens and prompt of one sequence.
void ExpectPlan(const ModelManifest& model, const PlanOptions& options, int64_t overhead, const Plan& plan);

// Besides, its tokens are those of `input`, each in its place.
void ExpectTokens(const ModelManifest& model, const InputTokens& input, const Plan& plan);

// Two plans of one input have equal arrays, bit by bit.
void ExpectSamePlan(const Plan& one, const Plan& other);

}  // namespace longembed

#endif  // LONGEMBED_TESTS_FUZZ_PLAN_INVARIANTS_H_
