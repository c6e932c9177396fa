// Fewer vectors of a document's tokens: hierarchical clustering by Ward's criterion, each cluster to its mean (token
// pooling, arXiv 2409.14683). Pure functions: any thread.
#ifndef LONGEMBED_MODEL_VECTOR_TOKEN_POOLING_H_
#define LONGEMBED_MODEL_VECTOR_TOKEN_POOLING_H_

#include <cstdint>
#include <span>
#include <vector>

namespace longembed {

// Vectors that are clustered together. Time and memory grow with the square of it: a run of more is clustered in runs
// of at most so many, one after the other.
inline constexpr int64_t kTokensPooledTogether = 1024;

// The cluster of each vector, numbered from 0 by their first ones. `clusters` of them, 1 <= clusters <= vectors.size():
// from one a vector, the two whose union adds the least to the sum of squared distances from the clusters' means become
// one, until so many are left. The vectors are equally long.
std::vector<int32_t> WardClusters(std::span<const std::span<const float>> vectors, int64_t clusters);

// The same for a document of any length, ceil(n / factor) clusters of each run of n <= kTokensPooledTogether vectors.
std::vector<int32_t> PooledTokens(std::span<const std::span<const float>> vectors, int64_t factor);

// The number of its clusters.
int64_t PooledCount(int64_t vectors, int64_t factor);

// Bytes that it takes beside the vectors.
int64_t PoolingBytes(int64_t vectors);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_VECTOR_TOKEN_POOLING_H_
