#include "model/vector/token_pooling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>
#include <set>

namespace longembed {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;

std::vector<std::vector<float>> Random(int n, int width, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<std::vector<float>> vectors(static_cast<size_t>(n), std::vector<float>(static_cast<size_t>(width)));
  for (auto& vector : vectors) std::ranges::generate(vector, [&] { return normal(random); });
  return vectors;
}

std::vector<std::span<const float>> Views(const std::vector<std::vector<float>>& vectors) {
  return {vectors.begin(), vectors.end()};
}

// Returns the sum of squared distances from the mean, computed from its definition.
double Spread(const std::vector<std::vector<float>>& vectors, const std::vector<int>& members) {
  const size_t width = vectors.front().size();
  double spread = 0;
  for (size_t c = 0; c < width; ++c) {
    double mean = 0;
    for (const int m : members) mean += vectors[static_cast<size_t>(m)][c];
    mean /= static_cast<double>(members.size());
    for (const int m : members) spread += std::pow(vectors[static_cast<size_t>(m)][c] - mean, 2);
  }
  return spread;
}

// Runs Ward's method without regard to its cost.
std::set<std::vector<int>> Greedy(const std::vector<std::vector<float>>& vectors, size_t count) {
  std::vector<std::vector<int>> clusters;
  for (size_t i = 0; i < vectors.size(); ++i) clusters.push_back({static_cast<int>(i)});
  while (clusters.size() > count) {
    double least = std::numeric_limits<double>::infinity();
    size_t one = 0, other = 0;
    for (size_t a = 0; a < clusters.size(); ++a) {
      for (size_t b = a + 1; b < clusters.size(); ++b) {
        std::vector<int> both = clusters[a];
        both.insert(both.end(), clusters[b].begin(), clusters[b].end());
        const double more = Spread(vectors, both) - Spread(vectors, clusters[a]) - Spread(vectors, clusters[b]);
        if (more < least) least = more, one = a, other = b;
      }
    }
    clusters[one].insert(clusters[one].end(), clusters[other].begin(), clusters[other].end());
    clusters.erase(clusters.begin() + static_cast<std::ptrdiff_t>(other));
  }
  std::set<std::vector<int>> sorted;
  for (auto& cluster : clusters) {
    std::ranges::sort(cluster);
    sorted.insert(cluster);
  }
  return sorted;
}

TEST(TokenPoolingTest, IsWardsMethod) {
  for (const int n : {1, 2, 3, 10, 37}) {
    const auto vectors = Random(n, 5, static_cast<unsigned>(n));
    for (int clusters = 1; clusters <= n; clusters += 1 + n / 6) {
      const std::vector<int32_t> labels = WardClusters(Views(vectors), clusters);
      std::vector<std::vector<int>> members(static_cast<size_t>(clusters));
      for (int i = 0; i < n; ++i) members.at(static_cast<size_t>(labels[static_cast<size_t>(i)])).push_back(i);
      const std::set<std::vector<int>> found(members.begin(), members.end());
      EXPECT_EQ(found, Greedy(vectors, static_cast<size_t>(clusters))) << n << " to " << clusters;
    }
  }
}

TEST(TokenPoolingTest, ClustersAreNumberedByTheirFirstVectors) {
  const std::vector<std::vector<float>> vectors{{0}, {9}, {0.1f}, {5}, {9.1f}};
  EXPECT_THAT(WardClusters(Views(vectors), 3), ElementsAre(0, 1, 0, 2, 1));
}

TEST(TokenPoolingTest, EqualVectorsAreOneCluster) {
  const std::vector<std::vector<float>> vectors(50, {1, 2});
  EXPECT_THAT(WardClusters(Views(vectors), 1), Each(0));
  const std::vector<int32_t> labels = WardClusters(Views(vectors), 7);
  EXPECT_EQ(*std::ranges::max_element(labels), 6);
}

TEST(TokenPoolingTest, ALongDocumentIsPooledRunByRun) {
  const auto vectors = Random(2500, 3, 1);
  const std::vector<int32_t> labels = PooledTokens(Views(vectors), 3);
  ASSERT_EQ(labels.size(), 2500u);
  const auto first = std::span(labels).first(1024);
  EXPECT_EQ(*std::ranges::max_element(first), 341);  // There are ceil(1024 / 3) clusters.
  EXPECT_THAT(first.subspan(0),
              ::testing::ElementsAreArray(WardClusters(Views({vectors.begin(), vectors.begin() + 1024}), 342)));
  EXPECT_EQ(*std::ranges::max_element(labels), 342 + 342 + 151 - 1);
  EXPECT_EQ(labels[1024], 342);
}

TEST(TokenPoolingTest, AFactorOfOneKeepsEveryVector) {
  EXPECT_THAT(PooledTokens(Views(Random(4, 3, 2)), 1), ElementsAre(0, 1, 2, 3));
}

}  // namespace
}  // namespace longembed
