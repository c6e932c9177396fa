#include "model/encoder/cpu/packed_weights.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

namespace longembed::cpu {
namespace {

// Writes convert(weight) for every weight to its place. `T` is what an operand's element is stored as.
template <typename T, typename Convert>
void Fill(PackedWeights& weights, const float* weight, const Convert& convert) {
  constexpr int kStepInputs = kStepBytes / static_cast<int>(sizeof(T));
  for (int o = 0; o < weights.outputs; ++o) {
    const int panel = o / kPanelOutputs;
    const ptrdiff_t step_bytes = static_cast<ptrdiff_t>(weights.vectors_of(panel)) * kLanes * kStepBytes;
    std::byte* step =
        weights.panels.data() + (weights.panel(panel) - weights.panels.data()) + (o % kPanelOutputs) * kStepBytes;
    const float* const row = weight + static_cast<ptrdiff_t>(o) * weights.inputs;
    for (int first = 0; first < weights.inputs; first += kStepInputs, step += step_bytes) {
      for (int i = first; i < std::min(first + kStepInputs, weights.inputs); ++i) {
        const T value = convert(o, row[i]);
        std::memcpy(step + (i - first) * sizeof(T), &value, sizeof(T));
      }
    }
  }
}

void PackInt8(PackedWeights& weights, const float* weight) {
  const int padded = RoundUp(weights.outputs, kLanes);
  weights.scales.assign(padded, 0.0f);
  weights.offsets.assign(padded, 0);
  for (int o = 0; o < weights.outputs; ++o) {
    const float* const row = weight + static_cast<ptrdiff_t>(o) * weights.inputs;
    float largest = 0;
    for (int i = 0; i < weights.inputs; ++i) largest = std::max(largest, std::fabs(row[i]));
    weights.scales[o] = largest / 127.0f;
  }
  Fill<int8_t>(weights, weight, [&](int o, float value) {
    const float scale = weights.scales[o];
    const auto integer = static_cast<int8_t>(scale > 0 ? std::lrint(value / scale) : 0);
    weights.offsets[o] += 128 * integer;
    return integer;
  });
}

}  // namespace

uint16_t ToBfloat16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

PackedWeights PackWeights(Precision precision, const float* weight, const float* bias, int outputs, int inputs) {
  const int step_inputs = StepInputs(precision);
  PackedWeights packed{
      .precision = precision, .outputs = outputs, .inputs = inputs, .steps = (inputs + step_inputs - 1) / step_inputs};
  const int padded = RoundUp(outputs, kLanes);
  packed.panels = AlignedBuffer(static_cast<size_t>(padded) * packed.steps * kStepBytes);
  std::memset(packed.panels.data(), 0, packed.panels.size());
  packed.bias.assign(padded, 0.0f);
  if (bias != nullptr) std::copy(bias, bias + outputs, packed.bias.begin());
  if (precision == Precision::kFloat32) Fill<float>(packed, weight, [](int, float value) { return value; });
  if (precision == Precision::kBfloat16)
    Fill<uint16_t>(packed, weight, [](int, float value) { return ToBfloat16(value); });
  if (precision == Precision::kInt8) PackInt8(packed, weight);
  return packed;
}

}  // namespace longembed::cpu
