// Reduces the number of a document's token vectors by hierarchical clustering with Ward's criterion; each cluster is
// then replaced by its mean (token pooling, arXiv 2409.14683). Pure functions that any thread can call.
#ifndef LONGEMBED_MODEL_VECTOR_TOKEN_POOLING_H_
#define LONGEMBED_MODEL_VECTOR_TOKEN_POOLING_H_

#include <cstdint>
#include <span>
#include <vector>

namespace longembed {

// Maximum number of vectors that are clustered together. Time and memory grow with its square, so longer documents are
// clustered in consecutive runs of at most this length.
inline constexpr int64_t kTokensPooledTogether = 1024;

// Returns the cluster of each vector. Clusters are numbered from 0 in the order of their first vectors. There are
// `clusters` of them, where 1 <= clusters <= vectors.size(). Starting from one cluster per vector, repeatedly merges
// the two clusters whose union adds least to the sum of squared distances from the clusters' means. All vectors have
// the same size.
std::vector<int32_t> WardClusters(std::span<const std::span<const float>> vectors, int64_t clusters);

// Returns the cluster of each vector of a document of any length. Each run of n <= kTokensPooledTogether vectors gives
// ceil(n / factor) clusters.
std::vector<int32_t> PooledTokens(std::span<const std::span<const float>> vectors, int64_t factor);

// Returns the number of clusters that PooledTokens makes of this many vectors.
int64_t PooledCount(int64_t vectors, int64_t factor);

// Returns the bytes of memory that PooledTokens needs in addition to the vectors.
int64_t PoolingBytes(int64_t vectors);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_VECTOR_TOKEN_POOLING_H_
