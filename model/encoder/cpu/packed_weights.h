// The weights of a linear layer, packed for the matrix kernels when a model is loaded.
//
// An operand is float32, bfloat16 or int8. For each of them, the kernel processes the inputs in steps of four bytes:
// one float, two bfloat16 or four int8 of a row are multiplied by the corresponding weights of each output and added to
// a 32-bit lane. One layout therefore serves all three types. Outputs are grouped into panels of three vectors' lanes
// (AVX-512: 48 outputs). A panel holds, for each step, four bytes of each output. The last panel has one to three
// vectors, with zeros beyond the last output. Inputs are padded with zeros to whole steps. For kernels without bfloat16
// products, rows are float32, and a step of an output's weights is one bfloat16.
#ifndef LONGEMBED_MODEL_ENCODER_CPU_PACKED_WEIGHTS_H_
#define LONGEMBED_MODEL_ENCODER_CPU_PACKED_WEIGHTS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "model/encoder/cpu/aligned_buffer.h"
#include "model/encoder/cpu/kernels.h"
#include "model/encoder/precision.h"
#include "model/encoder/program.h"

namespace longembed::cpu {

inline constexpr int kStepBytes = 4;
inline constexpr int kPanelVectors = 3;  // With three vectors, a tile of rows fills the registers and needs few loads.

constexpr int RoundUp(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

// Returns the number of inputs per step.
constexpr int StepInputs(Precision precision) {
  return precision == Precision::kFloat32 ? 1 : precision == Precision::kBfloat16 ? 2 : 4;
}

// Packed weights. LayOutWeights creates them without panels. The panels are then allocated and packed from `source`,
// any number of times. Immutable while a kernel reads them. In int8, weight = scale * integer with one scale per output
// (symmetric): the largest magnitude of an output's weights is 127, or with Kernels::int8_pairs, that of its pairs.
struct PackedWeights {
  const Kernels* kernels = nullptr;  // Kernels that the layout is for.
  Precision precision = Precision::kFloat32;
  Precision operand = Precision::kFloat32;  // Type that rows are converted to.
  int output_bytes = kStepBytes;            // Bytes of an output's weights per step.
  int outputs = 0;
  int inputs = 0;
  int steps = 0;  // Steps per panel.
  StoredMatrix source;
  AlignedBuffer panels;
  // [outputs rounded up to whole vectors], padded with zeros. All zeros if there is no bias.
  std::vector<float> bias;
  std::vector<float> scales;  // int8 only.
  // int8 only: int8_middle * sum of an output's integers. On x86, row bytes are unsigned, 128 above their values,
  // because the instruction multiplies unsigned by signed bytes. The offset is what the 128 adds to a sum.
  std::vector<int32_t> offsets;

  int panel_count() const { return (outputs + kernels->panel_outputs - 1) / kernels->panel_outputs; }
  int vectors_of(int panel) const {
    const int left = RoundUp(outputs, kernels->lanes) / kernels->lanes - panel * kPanelVectors;
    return left < kPanelVectors ? left : kPanelVectors;
  }
  const std::byte* panel(int index) const {
    return panels.data() + static_cast<ptrdiff_t>(index) * steps * kernels->panel_outputs * output_bytes;
  }
};

// Creates everything except the panels for weights [outputs, inputs]. `bias` is [outputs], or null.
PackedWeights LayOutWeights(const Kernels& kernels, Precision precision, const StoredMatrix& source, const float* bias);

// Returns the size of all panels in bytes.
size_t PanelBytes(const PackedWeights& weights);

// Allocates uninitialized memory for the panels, unless they have enough. Throws std::bad_alloc.
void AllocatePanels(PackedWeights& weights);

// Packs panels [first, last). If the source is mapped from a file, drops its pages afterwards. Returns the first output
// with a weight that is infinite or NaN, or -1 if all are finite. Threads may pack different panels at the same time.
int PackPanels(PackedWeights& weights, int first, int last);

// Lays out and packs weights. `weight` is row-major [outputs, inputs], finite, and not needed afterwards.
PackedWeights PackWeights(const Kernels& kernels, Precision precision, const float* weight, const float* bias,
                          int outputs, int inputs);

// Converts a float32 to bfloat16, rounding to nearest even as processors do. NaN stays NaN.
uint16_t ToBfloat16(float value);

}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_PACKED_WEIGHTS_H_
