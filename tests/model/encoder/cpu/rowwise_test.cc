// Compares the row kernels with loops in double precision.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "tests/model/encoder/cpu/each_kernel_set.h"

namespace longembed::cpu {
namespace {

class RowwiseTest : public ::testing::TestWithParam<int> {
 protected:
  std::vector<float> Random(size_t count, float mean = 0) {
    std::normal_distribution<float> normal(mean, 1);
    std::vector<float> values(count);
    for (float& value : values) value = normal(random_);
    return values;
  }
  Rows View(std::vector<float>& values, int width) const {
    return {reinterpret_cast<std::byte*>(values.data()), width * ptrdiff_t{4}};
  }

  static constexpr int kRows = 3;
  const int width_ = GetParam();
  std::mt19937 random_{5};
};

TEST_P(RowwiseTest, LayerNormOfASum) {
  ForEachKernelSet([&](const Kernels& kernels) {
    std::vector<float> a = Random(kRows * width_, 100), b = Random(kRows * width_), weight = Random(width_),
                       bias = Random(width_);
    std::vector<double> expected;
    for (int r = 0; r < kRows; ++r) {
      double mean = 0, variance = 0;
      const auto sum = [&](int j) { return double{a[r * width_ + j] + b[r * width_ + j]}; };
      for (int j = 0; j < width_; ++j) mean += sum(j) / width_;
      for (int j = 0; j < width_; ++j) variance += (sum(j) - mean) * (sum(j) - mean) / width_;
      for (int j = 0; j < width_; ++j) {
        expected.push_back((sum(j) - mean) / std::sqrt(variance + 1e-5) * weight[j] + bias[j]);
      }
    }
    // Runs in place, as the schedule may do.
    kernels.layer_norm(View(a, width_), View(b, width_), View(b, width_), kRows, width_, weight.data(), bias.data(),
                       1e-5f);
    for (size_t i = 0; i < expected.size(); ++i) ASSERT_NEAR(b[i], expected[i], 2e-4);
  });
}

TEST_P(RowwiseTest, RmsNorm) {
  ForEachKernelSet([&](const Kernels& kernels) {
    std::vector<float> x = Random(kRows * width_, 3), weight = Random(width_), y(x.size());
    kernels.rms_norm(View(x, width_), View(y, width_), kRows, width_, weight.data(), 1e-6f);
    for (int r = 0; r < kRows; ++r) {
      double squares = 0;
      for (int j = 0; j < width_; ++j) squares += double{x[r * width_ + j]} * x[r * width_ + j] / width_;
      for (int j = 0; j < width_; ++j) {
        ASSERT_NEAR(y[r * width_ + j], x[r * width_ + j] / std::sqrt(squares + 1e-6) * weight[j], 1e-5);
      }
    }
  });
}

TEST_P(RowwiseTest, LayerNormWithoutAResidual) {
  ForEachKernelSet([&](const Kernels& kernels) {
    std::vector<float> x = Random(kRows * width_, 2), weight = Random(width_), bias = Random(width_), y(x.size());
    kernels.layer_norm(View(x, width_), {}, View(y, width_), kRows, width_, weight.data(), bias.data(), 0.25f);
    for (int r = 0; r < kRows; ++r) {
      double mean = 0, variance = 0;
      for (int j = 0; j < width_; ++j) mean += double{x[r * width_ + j]} / width_;
      for (int j = 0; j < width_; ++j) variance += (x[r * width_ + j] - mean) * (x[r * width_ + j] - mean) / width_;
      for (int j = 0; j < width_; ++j) {
        const double expected = (x[r * width_ + j] - mean) / std::sqrt(variance + 0.25) * weight[j] + bias[j];
        ASSERT_NEAR(y[r * width_ + j], expected, 1e-5);
      }
    }
  });
}

TEST_P(RowwiseTest, NormsOfQueryAndKeyHeads) {
  ForEachKernelSet([&](const Kernels& kernels) {
    constexpr int kHeads = 4, kKeyHeads = 2;
    const int columns = (kHeads + 2 * kKeyHeads) * width_;
    std::vector<float> x = Random(kRows * columns, 1), query = Random(width_), key = Random(width_), y(x.size());
    for (const bool in_place : {false, true}) {
      const std::vector<float> before = x;
      std::vector<float>& out = in_place ? x : y;
      kernels.head_norm(View(x, columns), View(out, columns), kRows, kHeads, kKeyHeads, width_, query.data(),
                        key.data(), 0.25f);
      for (int r = 0; r < kRows; ++r) {
        for (int head = 0; head < kHeads + 2 * kKeyHeads; ++head) {
          const int first = r * columns + head * width_;
          double squares = 0;
          for (int j = 0; j < width_; ++j) squares += double{before[first + j]} * before[first + j] / width_;
          for (int j = 0; j < width_; ++j) {
            const double value = before[first + j], normal = value / std::sqrt(squares + 0.25);
            const double expected = head < kHeads               ? normal * query[j]
                                    : head < kHeads + kKeyHeads ? normal * key[j]
                                                                : value;
            ASSERT_NEAR(out[first + j], expected, 1e-5) << "head " << head;
          }
        }
      }
    }
  });
}

TEST_P(RowwiseTest, InterpolatedPositionsAreExactAtWholeOnes) {
  ForEachKernelSet([&](const Kernels& kernels) {
    constexpr int kTable = 5;
    std::vector<float> table = Random(kTable * width_);
    const std::vector<float> places{0, 4, 2, 1.25f, -3, 99, 3.5f};
    std::vector<float> y(places.size() * width_);
    kernels.interpolate(table.data(), kTable, places.data(), View(y, width_), static_cast<int>(places.size()), width_);
    const auto row = [&](int r, int j) { return table[r * width_ + j]; };
    for (int j = 0; j < width_; ++j) {
      const auto at = [&](int r) { return y[r * width_ + j]; };
      ASSERT_EQ(at(0), row(0, j));
      ASSERT_EQ(at(1), row(4, j));
      ASSERT_EQ(at(2), row(2, j));
      ASSERT_NEAR(at(3), 0.75 * row(1, j) + 0.25 * row(2, j), 1e-6);
      ASSERT_EQ(at(4), row(0, j));
      ASSERT_EQ(at(5), row(4, j));
      ASSERT_NEAR(at(6), 0.5 * row(3, j) + 0.5 * row(4, j), 1e-6);
    }
  });
}

TEST_P(RowwiseTest, MeansOfManyRowsLoseNoDigits) {
  ForEachKernelSet([&](const Kernels& kernels) {
    constexpr int kMany = 5000;
    std::vector<float> x = Random(static_cast<size_t>(kMany) * width_, 50), y(width_);
    kernels.mean(View(x, width_), kMany, width_, y.data());
    for (int j = 0; j < width_; ++j) {
      double sum = 0;
      for (int r = 0; r < kMany; ++r) sum += x[static_cast<size_t>(r) * width_ + j];
      ASSERT_NEAR(y[j], sum / kMany, 2e-5);
    }
  });
}

TEST_P(RowwiseTest, GatherAndAdd) {
  ForEachKernelSet([&](const Kernels& kernels) {
    std::vector<float> table = Random(4 * width_), y(2 * width_), sum(2 * width_);
    const std::vector<int32_t> ids{3, 1};
    kernels.gather(table.data(), ids.data(), View(y, width_), 2, width_);
    kernels.add(View(y, width_), View(table, width_), View(sum, width_), 2, width_);
    for (int j = 0; j < width_; ++j) {
      ASSERT_EQ(y[j], table[3 * width_ + j]);
      ASSERT_EQ(y[width_ + j], table[width_ + j]);
      ASSERT_EQ(sum[j], table[3 * width_ + j] + table[j]);
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Widths, RowwiseTest, ::testing::Values(1, 7, 16, 48, 100, 384));

}  // namespace
}  // namespace longembed::cpu
