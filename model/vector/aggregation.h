// Aggregates the vectors of a text's windows to one. Stateless: any thread.
#ifndef LONGEMBED_MODEL_VECTOR_AGGREGATION_H_
#define LONGEMBED_MODEL_VECTOR_AGGREGATION_H_

#include <cstdint>
#include <span>
#include <vector>

#include "model/plan/extension.h"

namespace longembed {

// `rows` are un-normalized window vectors of one width, at least one; `weights` are the windows' lengths in tokens,
// used by TOKEN_WEIGHTED_MEAN alone. Of `windows` the aggregation and its numbers count. Sums in double.
std::vector<float> Aggregate(const Windows& windows, std::span<const std::vector<float>> rows,
                             std::span<const int32_t> weights);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_VECTOR_AGGREGATION_H_
