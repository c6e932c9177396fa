// The floating-point operations of a plan and of a model.
#ifndef LONGEMBED_MODEL_PLAN_COST_H_
#define LONGEMBED_MODEL_PLAN_COST_H_

#include <cstdint>

#include "model/manifest/manifest.h"
#include "model/plan/plan.h"

namespace longembed {

// The cost of running the sequences.
struct Cost {
  int64_t tokens = 0;           // Tokens of all sequences together.
  int64_t attention_pairs = 0;  // Sum of n * n over sequences of n tokens.
  // Floating-point operations of linear layers and attention together, in 1e9. Local attention counts the pairs within
  // its window, and causal attention half of all pairs.
  double gflop = 0;
};
Cost EstimateCost(const ModelManifest& model, const Plan& plan);

// Returns the floating-point operations of global attention for one (query, key) pair, divided by those of everything
// else for one token. For a causal model the pair counts half. Everything else is the linear layers and local
// attention, whose window holds the same number of keys for every token of a long sequence.
double AttentionShare(const ModelManifest& model);

// Returns the floating-point operations of all linear layers for one token. A multiply-add counts as two.
double LinearOperations(const ModelManifest& model);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_COST_H_
