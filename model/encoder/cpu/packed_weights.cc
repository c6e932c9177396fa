#include "model/encoder/cpu/packed_weights.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "system/memory_nodes.h"

namespace longembed::cpu {
namespace {

float FromBfloat16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

// Converts binary16 to float. The exponent biases differ by 112. For infinity and NaN, all exponent bits are set.
float FromFloat16(uint16_t bits) {
  const uint32_t magnitude = (bits & 0x7fffu) << 13;
  const float scaled = std::bit_cast<float>(magnitude) * 0x1p112f;
  const uint32_t sign = (bits & 0x8000u) << 16, special = (bits & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0u;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(scaled) | special | sign);
}

template <float (*kWiden)(uint16_t)>
void WidenRow(const std::byte* row, float* out, int64_t count) {
  const auto* const narrow = reinterpret_cast<const uint16_t*>(row);
  for (int64_t i = 0; i < count; ++i) out[i] = kWiden(narrow[i]);
}

// Returns a row of `matrix` as float32. Converts it into `scratch` if it is stored in another precision.
const float* ReadRow(const StoredMatrix& matrix, int64_t row, std::vector<float>& scratch) {
  const std::byte* const from = matrix.data + row * matrix.row_bytes();
  switch (matrix.element) {
    case StoredElement::kFloat32:
      return reinterpret_cast<const float*>(from);
    case StoredElement::kBfloat16:
      WidenRow<FromBfloat16>(from, scratch.data(), matrix.columns);
      break;
    case StoredElement::kFloat16:
      WidenRow<FromFloat16>(from, scratch.data(), matrix.columns);
      break;
  }
  return scratch.data();
}

void ToElements(const float* row, int count, float* out) { std::copy(row, row + count, out); }
void ToElements(const float* row, int count, uint16_t* out) {
  for (int i = 0; i < count; ++i) out[i] = ToBfloat16(row[i]);
}

// Returns the largest magnitude of a row. With `pairs`, it includes the sums of neighboring weights of equal sign.
// Infinite or NaN if a weight is.
float LargestOf(const float* row, int inputs, bool pairs) {
  uint32_t largest_bits = 0;  // Bits of magnitudes have the same order as the magnitudes.
  const auto take = [&largest_bits](float value) {
    largest_bits = std::max(largest_bits, std::bit_cast<uint32_t>(value) & 0x7fffffffu);
  };
  for (int i = 0; i < inputs; ++i) take(row[i]);
  for (int i = 0; pairs && i + 1 < inputs; i += 2) {
    if ((row[i] < 0) == (row[i + 1] < 0)) take(row[i] + row[i + 1]);
  }
  return std::bit_cast<float>(largest_bits);
}

// Quantizes the weights of an output, and sets its scale and offset. `largest` is mapped to 127.
void Quantize(PackedWeights& weights, int output, const float* row, float largest, int8_t* out) {
  const float scale = largest / 127.0f;
  weights.scales[output] = scale;
  constexpr float kRound = 0x1.8p23f;  // Adding it rounds a number to an integer, to nearest even.
  const float divisor = scale > 0 ? scale : 1.0f;
  int32_t sum = 0;
  for (int i = 0; i < weights.inputs; ++i) {
    const auto integer =
        static_cast<int32_t>(std::bit_cast<uint32_t>(row[i] / divisor + kRound) - std::bit_cast<uint32_t>(kRound));
    out[i] = static_cast<int8_t>(integer);
    sum += integer;
  }
  weights.offsets[output] = weights.kernels->int8_middle * sum;
}

// Writes an output's elements, which are padded to whole steps, to their places in the panel.
template <int kBytes>
void Scatter(PackedWeights& weights, int output, const std::byte* elements) {
  const int panel = output / weights.kernels->panel_outputs;
  const ptrdiff_t step_bytes = static_cast<ptrdiff_t>(weights.vectors_of(panel)) * weights.kernels->lanes * kBytes;
  std::byte* to = weights.panels.data() + (weights.panel(panel) - weights.panels.data()) +
                  static_cast<ptrdiff_t>(output % weights.kernels->panel_outputs) * kBytes;
  for (int step = 0; step < weights.steps; ++step, to += step_bytes, elements += kBytes) {
    std::memcpy(to, elements, kBytes);
  }
}

// Packs outputs [first, last) as elements of type T. Returns the same as PackPanels.
template <typename T>
int PackOutputs(PackedWeights& weights, int first, int last) {
  int broken = -1;
  std::vector<float> scratch(static_cast<size_t>(weights.inputs));
  std::vector<T> elements(static_cast<size_t>(weights.steps) * weights.output_bytes / sizeof(T));
  for (int output = first; output < last; ++output) {
    const float* const row = ReadRow(weights.source, output, scratch);
    const bool pairs = std::is_same_v<T, int8_t> && weights.kernels->int8_pairs;
    const float largest = LargestOf(row, weights.inputs, pairs);
    if (broken < 0 && !std::isfinite(largest)) broken = output;
    if constexpr (std::is_same_v<T, int8_t>) {
      Quantize(weights, output, row, largest, elements.data());
    } else {
      ToElements(row, weights.inputs, elements.data());
    }
    const auto* const bytes = reinterpret_cast<const std::byte*>(elements.data());
    weights.output_bytes == kStepBytes ? Scatter<kStepBytes>(weights, output, bytes)
                                       : Scatter<kStepBytes / 2>(weights, output, bytes);
  }
  return broken;
}

}  // namespace

uint16_t ToBfloat16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

PackedWeights LayOutWeights(const Kernels& kernels, Precision precision, const StoredMatrix& source,
                            const float* bias) {
  const bool widened = precision == Precision::kBfloat16 && !kernels.bfloat16_rows;
  const Precision operand = widened ? Precision::kFloat32 : precision;
  const int step_inputs = StepInputs(operand);
  const auto outputs = static_cast<int>(source.rows), inputs = static_cast<int>(source.columns);
  PackedWeights weights{.kernels = &kernels,
                        .precision = precision,
                        .operand = operand,
                        .output_bytes = widened ? kStepBytes / 2 : kStepBytes,
                        .outputs = outputs,
                        .inputs = inputs,
                        .steps = (inputs + step_inputs - 1) / step_inputs,
                        .source = source};
  const int padded = RoundUp(outputs, kernels.lanes);
  weights.bias.assign(padded, 0.0f);
  if (bias != nullptr) std::copy(bias, bias + outputs, weights.bias.begin());
  if (precision == Precision::kInt8) {
    weights.scales.assign(padded, 0.0f);
    weights.offsets.assign(padded, 0);
  }
  return weights;
}

size_t PanelBytes(const PackedWeights& weights) {
  return static_cast<size_t>(RoundUp(weights.outputs, weights.kernels->lanes)) * weights.steps * weights.output_bytes;
}

void AllocatePanels(PackedWeights& weights) {
  const size_t bytes = PanelBytes(weights);
  if (weights.panels.size() >= bytes) return;
  weights.panels.Reserve(bytes);
  // Smaller panels are not on a page boundary, and fit into a core's caches.
  if (bytes >= AlignedBuffer::kHugePage) InterleaveOverNodes(weights.panels.data(), bytes);
}

int PackPanels(PackedWeights& weights, int first, int last) {
  int broken = -1;
  if (last == weights.panel_count()) {  // Zeros for outputs beyond the last one.
    std::byte* const panel = weights.panels.data() + (weights.panel(last - 1) - weights.panels.data());
    std::memset(panel, 0, weights.panels.size() - static_cast<size_t>(panel - weights.panels.data()));
  }
  const int panel_outputs = weights.kernels->panel_outputs;
  const int first_output = first * panel_outputs, last_output = std::min(last * panel_outputs, weights.outputs);
  switch (weights.precision) {
    case Precision::kFloat32:
      broken = PackOutputs<float>(weights, first_output, last_output);
      break;
    case Precision::kBfloat16:
      broken = PackOutputs<uint16_t>(weights, first_output, last_output);
      break;
    case Precision::kInt8:
      broken = PackOutputs<int8_t>(weights, first_output, last_output);
      break;
    case Precision::kFloat16:
      break;  // CUDA only, so never packed.
  }
  const StoredMatrix& source = weights.source;
  if (source.file == nullptr) return broken;
  source.file->DropPages(source.data + first_output * source.row_bytes(),
                         static_cast<size_t>((last_output - first_output) * source.row_bytes()));
  return broken;
}

PackedWeights PackWeights(const Kernels& kernels, Precision precision, const float* weight, const float* bias,
                          int outputs, int inputs) {
  PackedWeights weights =
      LayOutWeights(kernels, precision, Weight{.data = weight, .rows = outputs, .columns = inputs}, bias);
  AllocatePanels(weights);
  PackPanels(weights, 0, weights.panel_count());
  weights.source = {};
  return weights;
}

}  // namespace longembed::cpu
