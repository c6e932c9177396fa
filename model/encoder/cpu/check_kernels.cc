#if defined(__linux__)
#include <sched.h>
#endif

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <thread>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/encoder/cpu/aligned_buffer.h"
#include "model/encoder/cpu/kernels.h"
#include "model/encoder/cpu/packed_weights.h"
#include "system/return_if_error.h"

namespace longembed::cpu {
namespace {

// Returns a number between -1 and 1 from a sequence without a simple pattern, which could hide an error.
float Number(int i) { return static_cast<float>((i * 7919 + 104729) % 2003) / 1001.5f - 1.0f; }

std::vector<float> Numbers(int count, int seed) {
  std::vector<float> numbers(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) numbers[i] = Number(i + seed * 1013);
  return numbers;
}

Rows RowsOf(std::vector<float>& values, int width) {
  return {reinterpret_cast<std::byte*>(values.data()), width * SizeOf(Element::kFloat32)};
}

absl::Status Compare(const Kernels& kernels, const char* what, const std::vector<float>& found,
                     const std::vector<double>& expected, double tolerance) {
  for (size_t i = 0; i < expected.size(); ++i) {
    if (std::fabs(found[i] - expected[i]) <= tolerance) continue;
    return absl::InternalError(absl::StrCat("this core computes ", what, " wrongly with the kernels ", kernels.name,
                                            ": ", found[i], " in place of ", expected[i]));
  }
  return absl::OkStatus();
}

// Checks a product with more rows, outputs and steps than one tile of any set has.
absl::Status CheckProducts(const Kernels& kernels, Precision precision, const char* what, double tolerance) {
  constexpr int kRows = 19, kOutputs = 53, kInputs = 150;
  std::vector<float> x = Numbers(kRows * kInputs, 1), y(kRows * kOutputs);
  const std::vector<float> w = Numbers(kOutputs * kInputs, 2), bias = Numbers(kOutputs, 3);
  const PackedWeights weights = PackWeights(kernels, precision, w.data(), bias.data(), kOutputs, kInputs);
  const ptrdiff_t stride = RoundUp(weights.steps * kStepBytes, 64);
  AlignedBuffer operand(static_cast<size_t>(stride) * kRows);
  std::array<float, kRows> scales{};
  kernels.to_operand(RowsOf(x, kInputs), kRows, kInputs, weights.operand, operand.data(), stride, scales.data());
  const Operand in{operand.data(), stride, precision == Precision::kInt8 ? scales.data() : nullptr};
  kernels.multiply(precision)(weights, nullptr, in, kRows, 0, weights.panel_count(), Activation::kNone,
                              RowsOf(y, kOutputs));
  std::vector<double> expected;
  for (int r = 0; r < kRows; ++r) {
    for (int o = 0; o < kOutputs; ++o) {
      double sum = bias[o];
      for (int i = 0; i < kInputs; ++i) sum += double{x[r * kInputs + i]} * w[o * kInputs + i];
      expected.push_back(sum);
    }
  }
  return Compare(kernels, what, y, expected, tolerance);
}

float Widened(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

constexpr int kTokens = 21, kDim = 32, kColumns = 3 * kDim;

// Returns the attention of one head over kTokens rows of query, key and value.
std::vector<double> Contexts(const std::vector<float>& qkv) {
  std::vector<double> contexts;
  for (int i = 0; i < kTokens; ++i) {
    std::array<double, kDim> context{};
    double total = 0;
    for (int j = 0; j < kTokens; ++j) {
      double logit = 0;
      for (int c = 0; c < kDim; ++c) logit += double{qkv[i * kColumns + c]} * qkv[j * kColumns + kDim + c];
      const double weight = std::exp(logit);
      total += weight;
      for (int c = 0; c < kDim; ++c) context[c] += weight * qkv[j * kColumns + 2 * kDim + c];
    }
    for (const double value : context) contexts.push_back(value / total);
  }
  return contexts;
}

// Checks attention of one head with more tokens than a tile of queries has. In bfloat16, its components fill an AMX
// tile.
absl::Status CheckAttention(const Kernels& kernels, Element element, const char* what, double tolerance) {
  std::vector<float> qkv = Numbers(kTokens * kColumns, 4);
  std::vector<uint16_t> narrow;
  if (element == Element::kBfloat16) {
    for (float& value : qkv) {
      narrow.push_back(ToBfloat16(value));
      value = Widened(narrow.back());
    }
  }
  const std::vector<double> expected = Contexts(qkv);
  Rows rows = RowsOf(qkv, kColumns);
  if (!narrow.empty()) rows = {reinterpret_cast<std::byte*>(narrow.data()), kColumns * SizeOf(element), element};
  AlignedBuffer scratch(kernels.attention_scratch(kDim));
  const AttentionShape shape{.heads = 1, .key_value_heads = 1, .head_dim = kDim};
  kernels.attend(shape, {.qkv = rows, .tokens = kTokens}, 0, 1, 0, kTokens, scratch.data());
  for (size_t i = 0; i < narrow.size(); ++i) qkv[i] = Widened(narrow[i]);
  std::vector<float> found;
  for (int i = 0; i < kTokens; ++i) found.insert(found.end(), &qkv[i * kColumns], &qkv[i * kColumns + kDim]);
  return Compare(kernels, what, found, expected, tolerance);
}

absl::Status CheckNorms(const Kernels& kernels) {
  constexpr int kWidth = 37;
  std::vector<float> x = Numbers(kWidth, 5), y(kWidth);
  const std::vector<float> weight = Numbers(kWidth, 6), bias = Numbers(kWidth, 7);
  double mean = 0, squares = 0, variance = 0;
  for (const float value : x) mean += value / double{kWidth}, squares += double{value} * value / kWidth;
  for (const float value : x) variance += (value - mean) * (value - mean) / kWidth;
  std::vector<double> layer_norm, rms_norm;
  for (int j = 0; j < kWidth; ++j) {
    layer_norm.push_back((x[j] - mean) / std::sqrt(variance + 1e-5) * weight[j] + bias[j]);
    rms_norm.push_back(x[j] / std::sqrt(squares + 1e-5) * weight[j]);
  }
  kernels.layer_norm(RowsOf(x, kWidth), {}, RowsOf(y, kWidth), 1, kWidth, weight.data(), bias.data(), 1e-5f);
  RETURN_IF_ERROR(Compare(kernels, "layer norm", y, layer_norm, 1e-5));
  kernels.rms_norm(RowsOf(x, kWidth), RowsOf(y, kWidth), 1, kWidth, weight.data(), 1e-5f);
  return Compare(kernels, "RMS norm", y, rms_norm, 1e-5);
}

}  // namespace

absl::Status CheckKernels(const Kernels& kernels) {
  // The tolerances allow for rounding to 8 bits (bf16) and 7 bits (int8) in sums of 150 products below 1.
  for (const auto& [precision, what, tolerance] :
       {std::tuple(Precision::kFloat32, "fp32 products", 1e-4), std::tuple(Precision::kBfloat16, "bf16 products", 0.05),
        std::tuple(Precision::kInt8, "int8 products", 0.3)}) {
    RETURN_IF_ERROR(CheckProducts(kernels, precision, what, tolerance));
  }
  RETURN_IF_ERROR(CheckAttention(kernels, Element::kFloat32, "fp32 attention", 1e-5));
  if (kernels.attention_element == Element::kBfloat16) {
    RETURN_IF_ERROR(CheckAttention(kernels, Element::kBfloat16, "bf16 attention", 0.02));
  }
  return CheckNorms(kernels);
}

absl::Status CheckKernelsOnEveryCore(const Kernels& kernels, [[maybe_unused]] int threads) {
#if defined(__linux__)
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return CheckKernels(kernels);
  std::vector<int> cores;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &allowed)) cores.push_back(core);
  }
  std::vector<absl::Status> found(cores.size());
  std::atomic<size_t> next = 0;
  const auto check = [&] {
    for (size_t i = next++; i < cores.size(); i = next++) {
      cpu_set_t own;
      CPU_ZERO(&own);
      CPU_SET(cores[i], &own);
      // A core that has been taken offline in the meantime is not checked.
      if (sched_setaffinity(0, sizeof(own), &own) == 0) found[i] = CheckKernels(kernels);
    }
  };
  {
    std::vector<std::jthread> checking;
    for (int i = 0; i < std::max(1, threads); ++i) checking.emplace_back(check);
  }
  for (size_t i = 0; i < cores.size(); ++i) {
    if (found[i].ok()) continue;
    return absl::InternalError(absl::StrCat("core ", cores[i], ": ", found[i].message()));
  }
  return absl::OkStatus();
#else
  return CheckKernels(kernels);
#endif
}

}  // namespace longembed::cpu
