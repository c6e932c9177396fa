// Estimates a rate, such as seconds per token, from recent observations.
#ifndef LONGEMBED_SERVER_BATCHING_DECAYED_RATIO_H_
#define LONGEMBED_SERVER_BATCHING_DECAYED_RATIO_H_

#include <cmath>

namespace longembed {

// The ratio of two sums, `above` divided by `below`. Both sums decay exponentially as `below` grows: when it has grown
// by `memory`, an earlier observation counts for 1/e. An observation weighs as much as it adds to `below`. Not
// thread-safe.
class DecayedRatio {
 public:
  // The value is 0 until something is added.
  explicit DecayedRatio(double memory) : memory_(memory) {}
  // Starts with an assumed ratio that weighs as much as `memory`.
  DecayedRatio(double memory, double assumed) : memory_(memory), above_(assumed * memory), below_(memory) {}

  // REQUIRES: below >= 0.
  void Add(double above, double below) {
    const double decay = std::exp(-below / memory_);
    above_ = decay * above_ + above;
    below_ = decay * below_ + below;
  }

  double value() const { return below_ > 0 ? above_ / below_ : 0; }

 private:
  double memory_;
  double above_ = 0;
  double below_ = 0;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_BATCHING_DECAYED_RATIO_H_
