// Aggregates the vectors of a text's windows into one vector. Stateless functions that any thread can call.
#ifndef LONGEMBED_MODEL_VECTOR_AGGREGATION_H_
#define LONGEMBED_MODEL_VECTOR_AGGREGATION_H_

#include <cstdint>
#include <span>
#include <vector>

#include "model/plan/extension.h"

namespace longembed {

// Returns the aggregate of the window vectors `rows`, of which there is at least one. They are not normalized and have
// equal sizes. `weights` are the windows' lengths in tokens, used by TOKEN_WEIGHTED_MEAN only. Of `windows`, only the
// aggregation and its parameters are used. Sums are computed in double.
std::vector<float> Aggregate(const Windows& windows, std::span<const std::vector<float>> rows,
                             std::span<const int32_t> weights);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_VECTOR_AGGREGATION_H_
