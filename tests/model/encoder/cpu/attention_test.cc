// Compares the attention kernel with an n * n softmax in double precision, over exactly the numbers that the kernel
// reads.
#include "model/encoder/cpu/attention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <utility>
#include <vector>

#include "model/encoder/cpu/aligned_buffer.h"
#include "model/encoder/cpu/packed_weights.h"
#include "tests/model/encoder/cpu/each_kernel_set.h"

namespace longembed::cpu {
namespace {

struct Case {
  int tokens, heads, key_value_heads, head_dim;
  bool causal = false;
  int window = 0;
  int rotary_width = 0;
  int reach = AttentionShape::kEverywhere;
  int max_distance = 0;  // The largest distance with a bias of its own. 0: no bias.
  KeyBaskets baskets;
  int chunk = 0;
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << "n" << c.tokens << "_h" << c.heads << "_kv" << c.key_value_heads << "_d" << c.head_dim
       << (c.causal ? "_causal" : "") << "_w" << c.window << "_r" << c.rotary_width;
  if (c.reach != AttentionShape::kEverywhere) *out << "_reach" << c.reach;
  if (c.max_distance > 0) *out << "_bias" << c.max_distance;
  if (c.baskets.size > 0) *out << "_baskets" << c.baskets.size << "_apart" << c.baskets.apart;
  if (c.chunk > 0) *out << "_chunk" << c.chunk;
}

float FromBfloat16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

class AttentionTest : public ::testing::TestWithParam<Case> {
 protected:
  AttentionTest() : columns_((case_.heads + 2 * case_.key_value_heads) * case_.head_dim) {
    std::normal_distribution<float> normal(0, 1.5f);
    values_.resize(static_cast<size_t>(case_.tokens) * columns_);
    // The value is exact in both element types.
    for (float& value : values_) value = FromBfloat16(ToBfloat16(normal(random_)));
    std::uniform_real_distribution<double> angle(0, 6.28);
    for (int table = 0; table < 3; ++table) {
      for (int i = 0; i < case_.tokens * case_.rotary_width; ++i) {
        const double a = angle(random_);
        cos_[table].push_back(static_cast<float>(std::cos(a)));
        sin_[table].push_back(static_cast<float>(std::sin(a)));
      }
    }
    for (int i = 0; case_.max_distance > 0 && i < case_.heads * (2 * case_.max_distance + 1); ++i) {
      bias_.push_back(normal(random_));
    }
  }

  AttentionShape Shape() const {
    return {.heads = case_.heads,
            .key_value_heads = case_.key_value_heads,
            .head_dim = case_.head_dim,
            .causal = case_.causal,
            .reach = case_.reach,
            .relative_bias = bias_.empty() ? nullptr : bias_.data(),
            .max_distance = case_.max_distance};
  }

  AttentionInput Input(std::byte* qkv, Element element) const {
    const auto rotation = [this](int table) { return Rotation{cos_[table].data(), sin_[table].data()}; };
    return {.qkv = {qkv, columns_ * SizeOf(element), element},
            .tokens = case_.tokens,
            .scale = kScale,
            .rotary_width = case_.rotary_width,
            .plain = rotation(0),
            .grouped = rotation(1),
            .shifted = rotation(2),
            .window = case_.window,
            .chunk = case_.chunk,
            .baskets = case_.baskets};
  }

  // Runs the kernel in pieces, as a batch does. With local windows, a piece has the most queries that the kernel
  // allows.
  void Run(const Kernels& kernels, const AttentionInput& input) const {
    AlignedBuffer scratch(kernels.attention_scratch(case_.head_dim));
    const int most = case_.reach == AttentionShape::kEverywhere ? 200 : kMaxQueries;
    for (int first = 0; first < case_.tokens; first += most) {
      kernels.attend(Shape(), input, 0, case_.heads, first, std::min(first + most, case_.tokens), scratch.data());
    }
  }

  std::vector<double> Rotated(int token, int column, int table) const {
    const float* const from = values_.data() + static_cast<size_t>(token) * columns_ + column;
    std::vector<double> head(from, from + case_.head_dim);
    const int width = case_.rotary_width;
    for (int j = 0; j < width; ++j) {
      const double c = cos_[table][token * width + j], s = sin_[table][token * width + j];
      head[j] = from[j] * c - from[width + j] * s;
      head[width + j] = from[width + j] * c + from[j] * s;
    }
    return head;
  }

  std::vector<double> Expected(int head, int i) const {
    const int kv = head / (case_.heads / case_.key_value_heads);
    const int key_column = (case_.heads + kv) * case_.head_dim,
              value_column = (case_.heads + case_.key_value_heads + kv) * case_.head_dim;
    const std::vector<double> queries[3] = {Rotated(i, head * case_.head_dim, 0), Rotated(i, head * case_.head_dim, 1),
                                            Rotated(i, head * case_.head_dim, 2)};
    std::vector<double> logits(case_.tokens, -std::numeric_limits<double>::infinity());
    for (int j = 0; j < (case_.causal ? i + 1 : case_.tokens); ++j) {
      if (std::abs(i - j) > case_.reach) continue;
      const int w = case_.window;
      int query_table = w == 0 || std::abs(i - j) < w ? 0 : j < i ? 2 : 1;
      int key_table = query_table == 0 ? 0 : 3 - query_table;
      if (case_.chunk > 0) {  // In the next chunk the later token of the pair is shifted. Farther away it is grouped.
        const int away = std::abs(i / case_.chunk - j / case_.chunk);
        (j < i ? query_table : key_table) = away == 0 ? 0 : away == 1 ? 2 : 1;
      }
      const std::vector<double>& q = queries[query_table];
      const std::vector<double> k = Rotated(j, key_column, key_table);
      logits[j] = 0;
      for (int c = 0; c < case_.head_dim; ++c) logits[j] += q[c] * k[c] * kScale;
      if (case_.max_distance == 0) continue;
      const int distance = std::clamp(j - i, -case_.max_distance, case_.max_distance);
      logits[j] += bias_[head * (2 * case_.max_distance + 1) + case_.max_distance + distance];
    }
    const std::vector<double> weights = Calibrated(Softmax(logits));
    std::vector<double> context(case_.head_dim, 0);
    for (int j = 0; j < case_.tokens; ++j) {
      for (int c = 0; c < case_.head_dim; ++c) {
        context[c] += weights[j] * values_[static_cast<size_t>(j) * columns_ + value_column + c];
      }
    }
    return context;
  }

  static std::vector<double> Softmax(std::vector<double> logits) {
    const double largest = *std::ranges::max_element(logits);
    double sum = 0;
    for (double& logit : logits) sum += logit = std::exp(logit - largest);
    for (double& weight : logits) weight /= sum;
    return logits;
  }

  // Calibrates a whole row by the formula of KeyBaskets. Every basket with a nonzero weight gets an equal part of the
  // weight that the token `apart` does not have.
  std::vector<double> Calibrated(const std::vector<double>& weights) const {
    const auto [size, strength, apart] = case_.baskets;
    if (size == 0) return weights;
    std::map<int, double> baskets;
    double rest = 0;
    for (int j = 0; j < case_.tokens; ++j) {
      if (j == apart || weights[j] == 0) continue;
      baskets[j / size] += weights[j];
      rest += weights[j];
    }
    std::vector<double> mixed = weights;
    for (int j = 0; j < case_.tokens; ++j) {
      if (j == apart || weights[j] == 0) continue;
      const double even = rest / static_cast<double>(baskets.size()) * weights[j] / baskets[j / size];
      mixed[j] = (1 - strength) * weights[j] + strength * even;
    }
    return mixed;
  }

  template <typename Actual>
  void Compare(const Actual& actual, double tolerance) {
    for (int i = 0; i < case_.tokens; ++i) {
      for (int head = 0; head < case_.heads; ++head) {
        std::vector<double>& expected = expected_[{head, i}];  // The expected values are the same for all kernels.
        if (expected.empty()) expected = Expected(head, i);
        for (int c = 0; c < case_.head_dim; ++c) {
          ASSERT_NEAR(actual(i, head * case_.head_dim + c), expected[c], tolerance)
              << "token " << i << " head " << head;
        }
      }
    }
  }

  static constexpr float kScale = 0.21f;
  const Case case_ = GetParam();
  const int columns_;
  std::mt19937 random_{17};
  std::vector<float> values_;
  std::vector<float> cos_[3], sin_[3];
  std::vector<float> bias_;
  std::map<std::pair<int, int>, std::vector<double>> expected_;  // Keyed by head and token.
};

TEST_P(AttentionTest, Float32) {
  ForEachKernelSet([&](const Kernels& kernels) {
    std::vector<float> qkv = values_;
    Run(kernels, Input(reinterpret_cast<std::byte*>(qkv.data()), Element::kFloat32));
    Compare([&](int token, int column) { return qkv[static_cast<size_t>(token) * columns_ + column]; }, 2e-5);
    for (int i = 0; i < case_.tokens; ++i) {
      for (int column = case_.heads * case_.head_dim; column < columns_; ++column) {
        ASSERT_EQ(qkv[static_cast<size_t>(i) * columns_ + column], values_[static_cast<size_t>(i) * columns_ + column]);
      }
    }
  });
}

TEST_P(AttentionTest, Bfloat16) {
  ForEachKernelSet([&](const Kernels& kernels) {
    if (!kernels.bfloat16_rows) return;
    std::vector<uint16_t> qkv;
    for (const float value : values_) qkv.push_back(ToBfloat16(value));
    Run(kernels, Input(reinterpret_cast<std::byte*>(qkv.data()), Element::kBfloat16));
    Compare([&](int token, int column) { return FromBfloat16(qkv[static_cast<size_t>(token) * columns_ + column]); },
            case_.rotary_width == 0 ? 0.03 : 0.1);
  });
}

INSTANTIATE_TEST_SUITE_P(All, AttentionTest,
                         ::testing::Values(Case{1, 2, 2, 32}, Case{5, 3, 3, 32}, Case{16, 3, 3, 32}, Case{17, 2, 2, 64},
                                           Case{130, 2, 2, 32}, Case{300, 1, 1, 32}, Case{530, 1, 1, 16},
                                           Case{33, 2, 1, 128}, Case{40, 1, 1, 20}, Case{9, 1, 1, 7},
                                           Case{1, 1, 1, 32, true}, Case{50, 4, 2, 32, true},
                                           Case{300, 2, 1, 64, true, 0, 32}, Case{40, 2, 2, 32, false, 0, 16},
                                           Case{64, 2, 2, 20, false, 0, 8}, Case{40, 2, 1, 64, false, 7, 32},
                                           Case{300, 1, 1, 32, false, 30, 16}, Case{300, 1, 1, 32, true, 30, 16},
                                           Case{530, 1, 1, 32, false, 270, 16}, Case{530, 1, 1, 32, true, 257, 16},
                                           Case{260, 1, 1, 32, false, 2, 16}, Case{520, 1, 1, 16, true, 1000, 8}));

constexpr int kAll = AttentionShape::kEverywhere;

// Local windows from size 0 to beyond the sequence. Some or all queries of a tile do not see some blocks of keys.
INSTANTIATE_TEST_SUITE_P(Local, AttentionTest,
                         ::testing::Values(Case{40, 2, 1, 16, false, 0, 8, 0}, Case{40, 2, 2, 16, false, 0, 8, 1},
                                           Case{130, 1, 1, 32, false, 0, 16, 5}, Case{700, 2, 1, 24, false, 0, 12, 64},
                                           Case{600, 1, 1, 16, false, 0, 8, 256}, Case{530, 1, 1, 16, false, 0, 8, 263},
                                           Case{300, 1, 1, 16, false, 0, 8, 400}, Case{300, 2, 1, 16, true, 0, 8, 31},
                                           Case{530, 1, 1, 16, true, 0, 8, 0}));

// Baskets that blocks and tiles split, baskets of one key, and baskets beyond the sequence, with and without a token
// apart from them.
INSTANTIATE_TEST_SUITE_P(Calibrated, AttentionTest,
                         ::testing::Values(Case{1, 1, 1, 16, false, 0, 0, kAll, 0, {1, 0.5f, 0}},
                                           Case{5, 2, 2, 32, false, 0, 0, kAll, 0, {128, 0.5f, 0}},
                                           Case{300, 2, 1, 32, false, 0, 16, kAll, 0, {128, 0.5f, 0}},
                                           Case{300, 1, 1, 64, false, 0, 0, kAll, 0, {128, 0.5f, 299}},
                                           Case{257, 1, 1, 32, false, 0, 0, kAll, 0, {128, 1.0f, 256}},
                                           Case{40, 2, 2, 16, false, 0, 8, kAll, 0, {1, 0.7f, -1}},
                                           Case{530, 1, 1, 20, false, 0, 0, kAll, 0, {100, 0.3f, 529}},
                                           Case{700, 1, 1, 16, false, 0, 8, kAll, 0, {300, 1.0f, -1}},
                                           Case{700, 1, 1, 16, true, 0, 8, kAll, 0, {300, 1.0f, -1}},
                                           Case{530, 2, 1, 32, true, 0, 16, kAll, 0, {17, 0.5f, -1}},
                                           Case{300, 1, 1, 32, true, 30, 16, kAll, 0, {128, 0.5f, 299}},
                                           Case{530, 1, 1, 32, false, 270, 16, kAll, 0, {129, 0.9f, -1}},
                                           Case{300, 2, 1, 20, false, 0, 0, kAll, 7, {37, 0.5f, 0}},
                                           Case{300, 1, 1, 16, true, 0, 0, kAll, 20, {128, 0.5f, 0}},
                                           Case{300, 1, 1, 64, false, 0, 32, kAll, 0, {128, 0.0f, 0}}));

// Chunks smaller than a tile, of a block of keys, and larger than one, with a short last chunk.
INSTANTIATE_TEST_SUITE_P(DualChunk, AttentionTest,
                         ::testing::Values(Case{40, 2, 1, 16, false, 0, 8, kAll, 0, {}, 1},
                                           Case{40, 2, 1, 64, false, 0, 32, kAll, 0, {}, 7},
                                           Case{300, 1, 1, 32, false, 0, 16, kAll, 0, {}, 30},
                                           Case{300, 2, 1, 32, true, 0, 16, kAll, 0, {}, 30},
                                           Case{530, 1, 1, 16, true, 0, 8, kAll, 0, {}, 5},
                                           Case{900, 1, 1, 16, false, 0, 8, kAll, 0, {}, 256},
                                           Case{900, 1, 1, 16, true, 0, 8, kAll, 0, {}, 300},
                                           Case{50, 1, 1, 16, false, 0, 8, kAll, 0, {}, 64},
                                           Case{300, 1, 1, 32, false, 0, 16, kAll, 0, {40, 0.5f, 0}, 50}));

// If all attention goes to one basket, the other baskets still get their equal parts.
TEST(AttentionCalibrationTest, BasketsWithoutWeightGetTheirPart) {
  ForEachKernelSet([&](const Kernels& kernels) {
    constexpr int kTokens = 64, kDim = 16;
    std::vector<float> qkv(kTokens * 3 * kDim, 0.0f);
    for (int i = 0; i < kTokens; ++i) {
      float* const row = qkv.data() + i * 3 * kDim;
      row[0] = 100;
      row[kDim] = i < 16 ? 100 : -100;  // The logits are 1e4 and -1e4.
      row[2 * kDim] = static_cast<float>(i / 16);
    }
    const AttentionShape shape{.heads = 1, .key_value_heads = 1, .head_dim = kDim};
    const AttentionInput input{.qkv = {reinterpret_cast<std::byte*>(qkv.data()), 3 * kDim * 4, Element::kFloat32},
                               .tokens = kTokens,
                               .baskets = {.size = 16, .strength = 0.5f}};
    AlignedBuffer scratch(kernels.attention_scratch(kDim));
    kernels.attend(shape, input, 0, 1, 0, kTokens, scratch.data());
    for (int i = 0; i < kTokens; ++i) ASSERT_NEAR(qkv[i * 3 * kDim], 0.5 * (0 + 1 + 2 + 3) / 4.0, 1e-6);
  });
}

INSTANTIATE_TEST_SUITE_P(RelativeBias, AttentionTest,
                         ::testing::Values(Case{1, 1, 1, 16, false, 0, 0, kAll, 3},
                                           Case{40, 3, 3, 16, false, 0, 0, kAll, 128},
                                           Case{300, 2, 1, 20, false, 0, 0, kAll, 7},
                                           Case{530, 2, 2, 16, false, 0, 0, kAll, kMaxBiasDistance},
                                           Case{300, 1, 1, 16, true, 0, 0, kAll, 20},
                                           Case{300, 1, 1, 16, false, 0, 0, 33, 16}));

// If every logit is huge, negative or positive, the softmax must still be finite.
TEST(AttentionRangeTest, HugeLogitsStayFinite) {
  ForEachKernelSet([&](const Kernels& kernels) {
    constexpr int kTokens = 300, kDim = 32;
    for (const float sign : {-1.0f, 1.0f}) {
      std::vector<float> qkv(static_cast<size_t>(kTokens) * 3 * kDim);
      for (int i = 0; i < kTokens; ++i) {
        for (int c = 0; c < kDim; ++c) {
          float* const row = qkv.data() + static_cast<size_t>(i) * 3 * kDim;
          row[c] = 100;
          row[kDim + c] = sign * (100 + static_cast<float>(i));
          row[2 * kDim + c] = static_cast<float>(i);
        }
      }
      AlignedBuffer scratch(kernels.attention_scratch(kDim));
      const AttentionInput input{.qkv = {reinterpret_cast<std::byte*>(qkv.data()), 3 * kDim * 4}, .tokens = kTokens};
      kernels.attend({1, 1, kDim, false}, input, 0, 1, 0, 200, scratch.data());
      // The largest logit is that of the last or the first key, and this key takes all the weight.
      EXPECT_NEAR(qkv[0], sign > 0 ? kTokens - 1 : 0, 1e-3);
    }
  });
}

// A key equal to the largest one so far must get the same weight in a later block of keys, however large both are.
TEST(AttentionRangeTest, BlocksOfLargeScoresAreWeightedAlike) {
  ForEachKernelSet([&](const Kernels& kernels) {
    constexpr int kTokens = 600, kDim = 16;
    for (const float size : {1e2f, 1.3e3f, 1e5f, 1e10f}) {
      std::vector<float> qkv(static_cast<size_t>(kTokens) * 3 * kDim, 0.0f);
      for (int i = 0; i < kTokens; ++i) {
        float* const row = qkv.data() + static_cast<size_t>(i) * 3 * kDim;
        row[0] = 1.7f;
        // Two keys take half of the weight each. The second one is in another block.
        row[kDim] = i % 300 == 7 ? size : -size;
        row[2 * kDim] = static_cast<float>(i);
      }
      AlignedBuffer scratch(kernels.attention_scratch(kDim));
      const AttentionInput input{
          .qkv = {reinterpret_cast<std::byte*>(qkv.data()), 3 * kDim * 4}, .tokens = kTokens, .scale = 0.37f};
      kernels.attend({1, 1, kDim, false}, input, 0, 1, 0, 200, scratch.data());
      EXPECT_NEAR(qkv[0], (7 + 307) / 2.0, 1e-3) << size;
    }
  });
}

// The mean of many equal values is that value. A running sum over 32,768 keys would be 3e-4 of it away.
TEST(AttentionRangeTest, ManyKeysLoseNoPrecision) {
  ForEachKernelSet([&](const Kernels& kernels) {
    constexpr int kTokens = 32768, kDim = 16;
    for (const float value : {0.1f, 0.3f, 1.7f, -0.7f}) {
      std::vector<float> qkv(static_cast<size_t>(kTokens) * 3 * kDim, 0.0f);
      for (int i = 0; i < kTokens; ++i) std::fill_n(qkv.data() + (static_cast<size_t>(i) * 3 + 2) * kDim, kDim, value);
      AlignedBuffer scratch(kernels.attention_scratch(kDim));
      const AttentionInput input{.qkv = {reinterpret_cast<std::byte*>(qkv.data()), 3 * kDim * 4}, .tokens = kTokens};
      kernels.attend({1, 1, kDim, false}, input, 0, 1, 0, 8, scratch.data());
      EXPECT_NEAR(qkv[0] / value, 1, 1e-5) << value;
    }
  });
}

}  // namespace
}  // namespace longembed::cpu
