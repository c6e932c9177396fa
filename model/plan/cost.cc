#include "model/plan/cost.h"

#include <algorithm>

namespace longembed {
namespace {

// Floating-point operations of one layer; a multiply and an add count as two.
struct LayerOperations {
  // Linear layers for one token: projections of query, key, value and output, and the feed-forward layer.
  double token = 0;
  // Attention for one (query, key) pair: the products with K and with V, averaged over all pairs. Pairs that a causal
  // model skips count as 0.
  double pair = 0;
};

LayerOperations OperationsOf(const ModelManifest& model) {
  const double h = model.hidden_size, heads = double{1} * model.attention_heads * model.head_dim,
               kv_heads = double{1} * model.key_value_heads * model.head_dim;
  const double weights = 2 * h * heads + 2 * h * kv_heads + (model.gated ? 3 : 2) * h * model.intermediate_size;
  const double pairs_that_run = model.causal ? 0.5 : 1;  // Fraction of n * n.
  return {.token = 2 * weights, .pair = 4 * heads * pairs_that_run};
}

// Returns the number of (query, key) pairs of n tokens that are at most `window` apart.
double LocalPairs(int64_t n, int64_t window) {
  const auto distance = static_cast<double>(std::min(window, n - 1)), count = static_cast<double>(n);
  return count + 2 * distance * count - distance * (distance + 1);
}

}  // namespace

Cost EstimateCost(const ModelManifest& model, const Plan& plan) {
  Cost cost;
  double local_pairs = 0;
  for (const PlannedSequence& planned : plan.sequences) {
    const int64_t n = planned.tokens;
    cost.tokens += n;
    cost.attention_pairs += n * n;
    local_pairs += LocalPairs(n, model.local_window);
  }
  const LayerOperations operations = OperationsOf(model);
  const double pairs = (model.layers - model.local_layers) * static_cast<double>(cost.attention_pairs) +
                       model.local_layers * local_pairs;
  cost.gflop = (model.layers * operations.token * static_cast<double>(cost.tokens) + operations.pair * pairs) * 1e-9;
  return cost;
}

double AttentionShare(const ModelManifest& model) {
  const LayerOperations operations = OperationsOf(model);
  const double window = 2.0 * model.local_window + 1;
  const double token = model.layers * operations.token + model.local_layers * window * operations.pair;
  return token > 0 ? (model.layers - model.local_layers) * operations.pair / token : 0;
}

double LinearOperations(const ModelManifest& model) { return model.layers * OperationsOf(model).token; }

}  // namespace longembed
