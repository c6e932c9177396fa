// Compares the matrix kernels with sums in double precision, over exactly the numbers that the kernels see.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numbers>
#include <random>
#include <span>
#include <tuple>
#include <vector>

#include "model/encoder/cpu/packed_weights.h"
#include "tests/model/encoder/cpu/each_kernel_set.h"

namespace longembed::cpu {
namespace {

float FromBfloat16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

std::vector<float> Random(std::mt19937& random, size_t count, float scale) {
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

// Converts a row to the kernel's operand format and back to numbers.
std::vector<double> AsOperand(const Kernels& kernels, std::span<const float> row, Precision precision,
                              bool of_weights = false) {
  std::vector<double> seen(row.begin(), row.end());
  if (precision == Precision::kBfloat16 && (of_weights || kernels.bfloat16_rows)) {
    for (double& value : seen) value = FromBfloat16(ToBfloat16(static_cast<float>(value)));
  }
  if (precision == Precision::kInt8) {
    float largest = 0;
    for (const float value : row) largest = std::max(largest, std::fabs(value));
    // The scales are computed in floats, because they decide where values round: weights are divided by their scale,
    // and rows are multiplied by its inverse.
    for (size_t i = 0; of_weights && kernels.int8_pairs && i + 1 < row.size(); i += 2) {
      const float positive = std::max(row[i], 0.0f) + std::max(row[i + 1], 0.0f);
      const float negative = std::min(row[i], 0.0f) + std::min(row[i + 1], 0.0f);
      largest = std::max({largest, positive, -negative});
    }
    const float scale = largest / 127;
    for (double& value : seen) {
      const auto number = static_cast<float>(value);
      const float quotient = of_weights ? number / scale : number * (127 / largest);
      value = scale == 0 ? 0 : std::nearbyint(quotient) * double{scale};
    }
  }
  return seen;
}

struct Shape {
  int rows, outputs, inputs;
};

class MatmulTest : public ::testing::TestWithParam<std::tuple<Precision, Shape>> {
 protected:
  // Makes an operand. Its rows are at least 64 bytes apart.
  Operand MakeOperand(const Kernels& kernels, const std::vector<float>& x) {
    const bool widened = precision_ == Precision::kBfloat16 && !kernels.bfloat16_rows;
    const Precision operand = widened ? Precision::kFloat32 : precision_;
    const ptrdiff_t stride = RoundUp(shape_.inputs * 4, 64);
    bytes_ = AlignedBuffer(static_cast<size_t>(stride) * shape_.rows + 64);
    scales_.resize(shape_.rows);
    const Rows rows{reinterpret_cast<std::byte*>(const_cast<float*>(x.data())), shape_.inputs * ptrdiff_t{4}};
    kernels.to_operand(rows, shape_.rows, shape_.inputs, operand, bytes_.data(), stride, scales_.data());
    return {
        .data = bytes_.data(), .stride = stride, .scales = precision_ == Precision::kInt8 ? scales_.data() : nullptr};
  }

  std::vector<double> Expected(const Kernels& kernels, const std::vector<float>& x, const std::vector<float>& w,
                               const std::vector<float>& bias) {
    std::vector<double> y;
    for (int r = 0; r < shape_.rows; ++r) {
      const auto row =
          AsOperand(kernels, std::span(x).subspan(static_cast<size_t>(r) * shape_.inputs, shape_.inputs), precision_);
      for (int o = 0; o < shape_.outputs; ++o) {
        const auto column = AsOperand(
            kernels, std::span(w).subspan(static_cast<size_t>(o) * shape_.inputs, shape_.inputs), precision_, true);
        double sum = bias[o];
        for (int i = 0; i < shape_.inputs; ++i) sum += row[i] * column[i];
        y.push_back(sum);
      }
    }
    return y;
  }

  const Precision precision_ = std::get<0>(GetParam());
  const Shape shape_ = std::get<1>(GetParam());
  std::mt19937 random_{static_cast<uint32_t>(shape_.rows * 1000 + shape_.outputs)};
  AlignedBuffer bytes_;
  std::vector<float> scales_;
};

TEST_P(MatmulTest, IsTheSumOfProducts) {
  ForEachKernelSet([&](const Kernels& kernels) {
    const auto [rows, outputs, inputs] = shape_;
    const std::vector<float> x = Random(random_, static_cast<size_t>(rows) * inputs, 1);
    const std::vector<float> w = Random(random_, static_cast<size_t>(outputs) * inputs, 0.1f);
    const std::vector<float> bias = Random(random_, outputs, 1);
    const PackedWeights packed = PackWeights(kernels, precision_, w.data(), bias.data(), outputs, inputs);
    const Operand operand = MakeOperand(kernels, x);
    const std::vector<double> expected = Expected(kernels, x, w, bias);

    constexpr float kUntouched = 12345;
    // The additional column must not be written.
    std::vector<float> y(static_cast<size_t>(rows) * (outputs + 1), kUntouched);
    const Rows out{reinterpret_cast<std::byte*>(y.data()), (outputs + 1) * ptrdiff_t{4}};
    const int half = packed.panel_count() / 2;
    kernels.multiply(packed.precision)(packed, nullptr, operand, rows, 0, half, Activation::kNone, out);
    kernels.multiply(packed.precision)(packed, nullptr, operand, rows, half, packed.panel_count(), Activation::kNone,
                                       out);
    for (int r = 0; r < rows; ++r) {
      for (int o = 0; o < outputs; ++o) {
        ASSERT_NEAR(y[r * (outputs + 1) + o], expected[r * outputs + o], 2e-5) << "row " << r << ", output " << o;
      }
      ASSERT_EQ(y[r * (outputs + 1) + outputs], kUntouched);
    }
  });
}

TEST_P(MatmulTest, GeluAndBfloat16Results) {
  ForEachKernelSet([&](const Kernels& kernels) {
    if (!kernels.bfloat16_rows || precision_ == Precision::kFloat32) return;
    const auto [rows, outputs, inputs] = shape_;
    const std::vector<float> x = Random(random_, static_cast<size_t>(rows) * inputs, 1);
    const std::vector<float> w = Random(random_, static_cast<size_t>(outputs) * inputs, 0.3f);
    const std::vector<float> bias(outputs, 0);
    const PackedWeights packed = PackWeights(kernels, precision_, w.data(), nullptr, outputs, inputs);
    const Operand operand = MakeOperand(kernels, x);
    const std::vector<double> sums = Expected(kernels, x, w, bias);
    std::vector<uint16_t> y(static_cast<size_t>(rows) * outputs);
    kernels.multiply(packed.precision)(
        packed, nullptr, operand, rows, 0, packed.panel_count(), Activation::kGelu,
        {reinterpret_cast<std::byte*>(y.data()), outputs * ptrdiff_t{2}, Element::kBfloat16});
    for (size_t i = 0; i < y.size(); ++i) {
      const double gelu = sums[i] * 0.5 * (1 + std::erf(sums[i] / std::sqrt(2.0)));
      ASSERT_NEAR(FromBfloat16(y[i]), gelu, 1e-5 + std::fabs(gelu) / 200);
    }
  });
}

double Activated(Activation activation, double x) {
  switch (activation) {
    case Activation::kNone:
      return x;
    case Activation::kGelu:
      return x * 0.5 * (1 + std::erf(x / std::sqrt(2.0)));
    case Activation::kGeluTanh:
      return x * 0.5 * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    case Activation::kTanh:
      return std::tanh(x);
    case Activation::kRelu:
      return std::max(x, 0.0);
  }
  return x;
}

TEST_P(MatmulTest, AGateIsActivatedAndMultiplied) {
  ForEachKernelSet([&](const Kernels& kernels) {
    const auto [rows, outputs, inputs] = shape_;
    const std::vector<float> x = Random(random_, static_cast<size_t>(rows) * inputs, 1);
    const std::vector<float> w = Random(random_, static_cast<size_t>(outputs) * inputs, 0.1f);
    const std::vector<float> g = Random(random_, static_cast<size_t>(outputs) * inputs, 0.3f);
    const std::vector<float> bias = Random(random_, outputs, 1), gate_bias = Random(random_, outputs, 1);
    const PackedWeights weights = PackWeights(kernels, precision_, w.data(), bias.data(), outputs, inputs);
    const PackedWeights gate = PackWeights(kernels, precision_, g.data(), gate_bias.data(), outputs, inputs);
    const Operand operand = MakeOperand(kernels, x);
    const std::vector<double> values = Expected(kernels, x, w, bias), gates = Expected(kernels, x, g, gate_bias);

    for (const Activation activation : {Activation::kSilu, Activation::kGelu, Activation::kGeluTanh}) {
      constexpr float kUntouched = 12345;
      std::vector<float> y(static_cast<size_t>(rows) * (outputs + 1), kUntouched);
      const Rows out{reinterpret_cast<std::byte*>(y.data()), (outputs + 1) * ptrdiff_t{4}};
      const int half = weights.panel_count() / 2;
      kernels.multiply(weights.precision)(weights, &gate, operand, rows, 0, half, activation, out);
      kernels.multiply(weights.precision)(weights, &gate, operand, rows, half, weights.panel_count(), activation, out);
      for (int r = 0; r < rows; ++r) {
        for (int o = 0; o < outputs; ++o) {
          const double expected = Activated(activation, gates[r * outputs + o]) * values[r * outputs + o];
          ASSERT_NEAR(y[r * (outputs + 1) + o], expected, 1e-4) << "row " << r << ", output " << o;
        }
        ASSERT_EQ(y[r * (outputs + 1) + outputs], kUntouched);
      }
    }
  });
}

INSTANTIATE_TEST_SUITE_P(All, MatmulTest,
                         ::testing::Combine(::testing::Values(Precision::kFloat32, Precision::kBfloat16,
                                                              Precision::kInt8),
                                            ::testing::Values(Shape{1, 1, 1}, Shape{1, 48, 64}, Shape{7, 33, 5},
                                                              Shape{8, 96, 384}, Shape{9, 49, 31}, Shape{17, 100, 130},
                                                              Shape{40, 16, 2}, Shape{3, 145, 7}, Shape{100, 50, 3})));

TEST(MatmulFloatTest, ActivationsAreTheExactOnesEverywhere) {
  ForEachKernelSet([&](const Kernels& kernels) {
    const float one = 1;
    const PackedWeights identity = PackWeights(kernels, Precision::kFloat32, &one, nullptr, 1, 1);
    for (const Activation activation :
         {Activation::kGelu, Activation::kGeluTanh, Activation::kSilu, Activation::kTanh, Activation::kRelu}) {
      std::vector<float> xs{0, -100, 100, -3e4f, 3e4f, -1e30f, 1e30f};
      for (float x = -20; x <= 20; x += 0.0137f) xs.push_back(x);
      for (const float x : xs) {
        float y = 0;
        kernels.multiply(identity.precision)(identity, nullptr,
                                             {.data = reinterpret_cast<const std::byte*>(&x), .stride = 4}, 1, 0, 1,
                                             activation, {reinterpret_cast<std::byte*>(&y), 4});
        const double expected = Activated(activation, x);
        ASSERT_NEAR(y, expected, 1e-6 + std::fabs(expected) * 1e-6)
            << x << ", activation " << static_cast<int>(activation);
      }
    }
  });
}

TEST(MatmulFloatTest, ZeroRowsAndWeightsGiveTheBias) {
  ForEachKernelSet([&](const Kernels& kernels) {
    const std::vector<float> zeros(64, 0.0f);
    const float bias = 0.5f;
    const PackedWeights packed = PackWeights(kernels, Precision::kInt8, zeros.data(), &bias, 1, 64);
    std::vector<std::byte> bytes(64);
    float scale = 0, y = 0;
    const Rows x{reinterpret_cast<std::byte*>(const_cast<float*>(zeros.data())), 256};
    kernels.to_operand(x, 1, 64, Precision::kInt8, bytes.data(), 64, &scale);
    kernels.multiply(packed.precision)(packed, nullptr, {.data = bytes.data(), .stride = 64, .scales = &scale}, 1, 0, 1,
                                       Activation::kNone, {reinterpret_cast<std::byte*>(&y), 4});
    EXPECT_EQ(y, bias);
  });
}

// NaN must not turn into a number, and neither must infinity in int8: the results of their row are NaN. The results of
// other rows stay finite.
TEST(MatmulRangeTest, NanAndInfinityStayVisible) {
  ForEachKernelSet([&](const Kernels& kernels) {
    constexpr int kRows = 3, kInputs = 70, kOutputs = 5;
    std::mt19937 random(9);
    const std::vector<float> w = Random(random, kOutputs * kInputs, 0.1f);
    for (const Precision precision : {Precision::kFloat32, Precision::kBfloat16, Precision::kInt8}) {
      const PackedWeights packed = PackWeights(kernels, precision, w.data(), nullptr, kOutputs, kInputs);
      for (const Activation activation : {Activation::kNone, Activation::kGelu, Activation::kGeluTanh,
                                          Activation::kSilu, Activation::kTanh, Activation::kRelu}) {
        for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
          for (const int column : {0, 17, kInputs - 1}) {
            std::vector<float> x = Random(random, kRows * kInputs, 1), y(kRows * kOutputs);
            x[kInputs + column] = bad;
            const ptrdiff_t stride = RoundUp(kInputs * 4, 64);
            AlignedBuffer bytes(static_cast<size_t>(stride) * kRows);
            std::vector<float> scales(kRows);
            kernels.to_operand({reinterpret_cast<std::byte*>(x.data()), kInputs * 4}, kRows, kInputs, packed.operand,
                               bytes.data(), stride, scales.data());
            const float* const used = precision == Precision::kInt8 ? scales.data() : nullptr;
            kernels.multiply(precision)(packed, nullptr, {bytes.data(), stride, used}, kRows, 0, packed.panel_count(),
                                        activation, {reinterpret_cast<std::byte*>(y.data()), kOutputs * 4});
            for (int o = 0; o < kOutputs; ++o) {
              EXPECT_TRUE(std::isfinite(y[o]) && std::isfinite(y[2 * kOutputs + o]));
              if (std::isnan(bad) || precision == Precision::kInt8) {
                EXPECT_TRUE(std::isnan(y[kOutputs + o])) << PrecisionName(precision) << ", column " << column;
              }
            }
          }
        }
      }
    }
  });
}

// The largest rows times the largest weights. Sums of two products in 16 bits must not overflow.
TEST(MatmulRangeTest, TheLargestProductsDoNotSaturate) {
  ForEachKernelSet([&](const Kernels& kernels) {
    constexpr int kInputs = 64;
    for (const float sign : {1.0f, -1.0f}) {
      for (const float second : {1.0f, 0.3f, -1.0f}) {
        std::vector<float> x(kInputs, 3.0f), w(kInputs, 2.0f * sign);
        for (int i = 1; i < kInputs; i += 2) w[i] *= second;
        const PackedWeights packed = PackWeights(kernels, Precision::kInt8, w.data(), nullptr, 1, kInputs);
        std::vector<std::byte> bytes(kInputs);
        float scale = 0, y = 0;
        kernels.to_operand({reinterpret_cast<std::byte*>(x.data()), kInputs * 4}, 1, kInputs, Precision::kInt8,
                           bytes.data(), kInputs, &scale);
        kernels.multiply_int8(packed, nullptr, {bytes.data(), kInputs, &scale}, 1, 0, 1, Activation::kNone,
                              {reinterpret_cast<std::byte*>(&y), 4});
        const double expected = 3.0 * 2 * sign * (1 + second) * kInputs / 2;
        EXPECT_NEAR(y, expected, 0.01 * 3 * 2 * kInputs) << sign << " " << second;
      }
    }
  });
}

}  // namespace
}  // namespace longembed::cpu
