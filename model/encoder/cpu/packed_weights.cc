#include "model/encoder/cpu/packed_weights.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

namespace longembed::cpu {
namespace {

// Where input i of output o lies.
std::byte* PlaceOf(PackedWeights& weights, int output, int input) {
  const int panel = output / kPanelOutputs;
  const int step_inputs = StepInputs(weights.precision);
  const ptrdiff_t step_bytes = static_cast<ptrdiff_t>(weights.vectors_of(panel)) * kLanes * kStepBytes;
  std::byte* const begin = weights.panels.data() + (weights.panel(panel) - weights.panels.data());
  return begin + (input / step_inputs) * step_bytes + (output % kPanelOutputs) * kStepBytes +
         (input % step_inputs) * (kStepBytes / step_inputs);
}

void PackInt8(PackedWeights& weights, const float* weight) {
  const int padded = RoundUp(weights.outputs, kLanes);
  weights.scales.assign(padded, 0.0f);
  weights.offsets.assign(padded, 0);
  for (int o = 0; o < weights.outputs; ++o) {
    const float* row = weight + static_cast<ptrdiff_t>(o) * weights.inputs;
    float largest = 0;
    for (int i = 0; i < weights.inputs; ++i) largest = std::max(largest, std::fabs(row[i]));
    const float scale = largest / 127.0f;
    int32_t sum = 0;
    for (int i = 0; i < weights.inputs && scale > 0; ++i) {
      const auto integer = static_cast<int8_t>(std::lrint(row[i] / scale));
      std::memcpy(PlaceOf(weights, o, i), &integer, sizeof(integer));
      sum += integer;
    }
    weights.scales[o] = scale;
    weights.offsets[o] = 128 * sum;
  }
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
  if (precision == Precision::kInt8) {
    PackInt8(packed, weight);
    return packed;
  }
  for (int o = 0; o < outputs; ++o) {
    for (int i = 0; i < inputs; ++i) {
      const float value = weight[static_cast<ptrdiff_t>(o) * inputs + i];
      const uint16_t half = ToBfloat16(value);
      if (precision == Precision::kFloat32) {
        std::memcpy(PlaceOf(packed, o, i), &value, sizeof(value));
      } else {
        std::memcpy(PlaceOf(packed, o, i), &half, sizeof(half));
      }
    }
  }
  return packed;
}

}  // namespace longembed::cpu
