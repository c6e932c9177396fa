#include "model/vector/token_pooling.h"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <numeric>

namespace longembed {
namespace {

double SquaredDistance(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = static_cast<double>(a[i]) - b[i];
    sum += difference * difference;
  }
  return sum;
}

struct Merge {
  double height = 0;
  size_t one = 0, other = 0;  // One vector of each merged cluster.
};

// Computes every merge down to one cluster by nearest-neighbor chains, which merge clusters that are each other's
// nearest neighbor. A merge never shortens Ward's distances, so the tree is the same as when merging the closest pair
// first.
class Dendrogram {
 public:
  explicit Dendrogram(std::span<const std::span<const float>> vectors)
      : n_(vectors.size()), sizes_(n_, 1), squared_(n_ * n_) {
    for (size_t i = 0; i < n_; ++i) {
      for (size_t j = 0; j < i; ++j)
        squared_[i * n_ + j] = squared_[j * n_ + i] = SquaredDistance(vectors[i], vectors[j]);
    }
  }

  // Returns the merges sorted by height.
  std::vector<Merge> Merges() {
    std::vector<Merge> merges;
    std::vector<size_t> chain;
    while (merges.size() + 1 < n_) {
      if (chain.empty()) chain.push_back(static_cast<size_t>(std::ranges::find_if(sizes_, kAlive) - sizes_.begin()));
      const size_t top = chain.back();
      const size_t before = chain.size() > 1 ? chain[chain.size() - 2] : top;
      const size_t nearest = NearestOf(top, before);
      if (nearest != before || before == top) {
        chain.push_back(nearest);
        continue;
      }
      chain.resize(chain.size() - 2);
      merges.push_back({squared_[top * n_ + nearest], top, nearest});
      Join(top, nearest);
    }
    std::ranges::stable_sort(merges, {}, &Merge::height);
    return merges;
  }

 private:
  static constexpr auto kAlive = [](int64_t size) { return size > 0; };

  // Returns the nearest cluster. Among equally near ones, prefers `preferred`, which guarantees that chains end.
  size_t NearestOf(size_t cluster, size_t preferred) const {
    size_t nearest = preferred;
    double least = preferred == cluster ? std::numeric_limits<double>::infinity() : squared_[cluster * n_ + preferred];
    for (size_t other = 0; other < n_; ++other) {
      if (other == cluster || sizes_[other] == 0 || squared_[cluster * n_ + other] >= least) continue;
      least = squared_[cluster * n_ + other];
      nearest = other;
    }
    return nearest;
  }

  // Merges two clusters by the Lance-Williams update of Ward's distances. The union replaces `one`.
  void Join(size_t one, size_t other) {
    const auto a = static_cast<double>(sizes_[one]), b = static_cast<double>(sizes_[other]);
    const double between = squared_[one * n_ + other];
    for (size_t k = 0; k < n_; ++k) {
      if (k == one || k == other || sizes_[k] == 0) continue;
      const auto c = static_cast<double>(sizes_[k]);
      const double joined =
          ((a + c) * squared_[one * n_ + k] + (b + c) * squared_[other * n_ + k] - c * between) / (a + b + c);
      squared_[one * n_ + k] = squared_[k * n_ + one] = joined;
    }
    sizes_[one] += sizes_[other];
    sizes_[other] = 0;
  }

  const size_t n_;
  std::vector<int64_t> sizes_;  // Sizes of the clusters; 0 for one that was merged into another.
  std::vector<double> squared_;
};

size_t RootOf(std::vector<size_t>& parents, size_t vector) {
  while (parents[vector] != vector) vector = parents[vector] = parents[parents[vector]];
  return vector;
}

}  // namespace

std::vector<int32_t> WardClusters(std::span<const std::span<const float>> vectors, int64_t clusters) {
  const size_t n = vectors.size();
  std::vector<size_t> parents(n);
  std::iota(parents.begin(), parents.end(), size_t{0});
  if (static_cast<size_t>(clusters) < n) {
    const std::vector<Merge> merges = Dendrogram(vectors).Merges();
    for (size_t i = 0; i < n - static_cast<size_t>(clusters); ++i) {
      const size_t one = RootOf(parents, merges[i].one), other = RootOf(parents, merges[i].other);
      parents[std::max(one, other)] = std::min(one, other);
    }
  }
  std::vector<int32_t> labels(n);
  int32_t next = 0;
  for (size_t i = 0; i < n; ++i) {
    const size_t root = RootOf(parents, i);  // First vector of the cluster.
    labels[i] = root == i ? next++ : labels[root];
  }
  return labels;
}

std::vector<int32_t> PooledTokens(std::span<const std::span<const float>> vectors, int64_t factor) {
  std::vector<int32_t> labels;
  int32_t before = 0;
  for (size_t start = 0; start < vectors.size(); start += kTokensPooledTogether) {
    const auto run = vectors.subspan(start, std::min<size_t>(kTokensPooledTogether, vectors.size() - start));
    const int64_t clusters = PooledCount(static_cast<int64_t>(run.size()), factor);
    for (const int32_t label : WardClusters(run, clusters)) labels.push_back(before + label);
    before += static_cast<int32_t>(clusters);
  }
  return labels;
}

int64_t PooledCount(int64_t vectors, int64_t factor) {
  const int64_t runs = vectors / kTokensPooledTogether, rest = vectors % kTokensPooledTogether;
  return runs * ((kTokensPooledTogether + factor - 1) / factor) + (rest + factor - 1) / factor;
}

int64_t PoolingBytes(int64_t vectors) {
  const int64_t together = std::min(vectors, kTokensPooledTogether);
  return together * together * static_cast<int64_t>(sizeof(double));
}

}  // namespace longembed
