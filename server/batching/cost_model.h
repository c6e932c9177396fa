// The cost of running a sequence. Its unit is the work of the linear layers for one token.
#ifndef LONGEMBED_SERVER_BATCHING_COST_MODEL_H_
#define LONGEMBED_SERVER_BATCHING_COST_MODEL_H_

#include <algorithm>
#include <cstdint>
#include <limits>

#include "model/plan/sequence.h"

namespace longembed {

// Converts tokens to cost. A plain value.
struct CostModel {
  // Floating-point operations of attention for one (query, key) pair, divided by those of the linear layers for one
  // token (AttentionShare). A sequence of n tokens costs n + attention * n * n.
  double attention = 0;
  // Sequences that cost more are oversized: each runs alone in its batch, and at most half of the workers lead one.
  int64_t oversized = std::numeric_limits<int64_t>::max();
  int32_t layers = 1;  // Of the model.

  // Returns the cost of a plain sequence.
  int64_t CostOf(int64_t tokens) const {
    return tokens + static_cast<int64_t>(attention * static_cast<double>(tokens) * static_cast<double>(tokens));
  }
  // Returns the additional cost of calibrating the attention of `tokens` tokens.
  int64_t CostOfCalibration(int64_t tokens, const SequenceCalibration& calibration) const {
    // Adding a basket to the sums of a row takes as long as its attention to this many keys, by measurement.
    constexpr double kKeysPerBasket = 20;
    if (calibration.basket == 0) return 0;
    const double baskets = static_cast<double>(tokens) / calibration.basket * calibration.rows.size();
    const double share = static_cast<double>(layers - calibration.first_layer) / layers;
    return static_cast<int64_t>(attention * kKeysPerBasket * share * baskets);
  }
  int64_t CostOf(const Sequence& sequence) const {
    return CostOf(sequence.size()) + CostOfCalibration(sequence.size(), sequence.calibration);
  }
  bool IsOversizedCost(int64_t cost) const { return cost > oversized; }
  bool IsOversized(const Sequence& sequence) const { return IsOversizedCost(CostOf(sequence)); }
};

// The total tokens and cost of the sequences of a call.
class Load {
 public:
  int64_t tokens() const { return tokens_; }
  int64_t cost() const { return cost_; }
  // Returns whether oversized sequences are most of the cost.
  bool is_oversized() const { return 2 * oversized_cost_ > cost_; }

  void Add(int64_t tokens, int64_t cost, bool oversized) {
    tokens_ += tokens;
    cost_ += cost;
    if (oversized) oversized_cost_ += cost;
  }

 private:
  int64_t tokens_ = 0;
  int64_t cost_ = 0;
  int64_t oversized_cost_ = 0;
};

// Returns the maximum number of oversized sequences that run at a time: half of the workers, so that short requests
// find a worker. In simulation (tests/benchmark/scheduling_simulation.cc) the p99 of short requests at a load of 0.8 is
// 20 times lower than with all workers but one, and oversized sequences wait as long. A single worker runs them, too.
inline int MaxRunningOversized(int workers) { return std::max(1, workers / 2); }

}  // namespace longembed

#endif  // LONGEMBED_SERVER_BATCHING_COST_MODEL_H_
