// The weights of a linear layer, laid out once at load for the matrix kernel.
//
// An operand is float32, bfloat16 or int8. Whatever it is, the kernel goes along the inputs in steps of four bytes: one
// float, two bfloat16 or four int8 of a row against as many of each output's weights, summed into a lane of 32 bits. So
// one layout serves all three: panels of three vectors' lanes of outputs (AVX-512: 48), and within a panel, for each
// step, the outputs' four bytes. The last panel has one to three vectors, zeros beyond the last output; inputs are
// padded by zeros to whole steps. Where the kernels have no products of bfloat16, rows are float32 and a step of an
// output's weights is one bfloat16.
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
inline constexpr int kPanelVectors = 3;  // Rows by three vectors fill the registers and need few loads.

constexpr int RoundUp(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

// Inputs that one step takes.
constexpr int StepInputs(Precision precision) {
  return precision == Precision::kFloat32 ? 1 : precision == Precision::kBfloat16 ? 2 : 4;
}

// Laid out at first, without panels; these are allocated and packed from `source` afterwards, any number of times.
// Immutable while a kernel reads it. int8: weight = scale * integer, each output with a scale of its own (symmetric;
// its largest magnitude at 127, or with Kernels::int8_pairs its largest pair).
struct PackedWeights {
  const Kernels* kernels = nullptr;  // Of their layout.
  Precision precision = Precision::kFloat32;
  Precision operand = Precision::kFloat32;  // What rows are converted to.
  int output_bytes = kStepBytes;            // Of an output's weights in a step.
  int outputs = 0;
  int inputs = 0;
  int steps = 0;  // Of each panel.
  StoredMatrix source;
  AlignedBuffer panels;
  // [outputs, rounded up to whole vectors], zeros beyond; no bias is zeros.
  std::vector<float> bias;
  std::vector<float> scales;  // int8 only.
  // int8 only: int8_middle * sum of an output's integers. On x86 rows come as unsigned bytes, 128 above their values,
  // because the instruction multiplies unsigned by signed; this is what that adds.
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

// Everything but the panels, for weights [outputs, inputs]; `bias` [outputs] or null.
PackedWeights LayOutWeights(const Kernels& kernels, Precision precision, const StoredMatrix& source, const float* bias);

// Bytes of all panels.
size_t PanelBytes(const PackedWeights& weights);

// Memory for the panels, unless they have it, with whatever is in it. Throws std::bad_alloc.
void AllocatePanels(PackedWeights& weights);

// Packs panels [first, last), and drops the pages that they came from where these are a file's. Returns the first
// output with a weight that is infinite or NaN, -1 where all are finite. Threads may pack different panels at the same
// time.
int PackPanels(PackedWeights& weights, int first, int last);

// All of it at once. `weight` is row-major [outputs, inputs], finite, and not needed afterwards.
PackedWeights PackWeights(const Kernels& kernels, Precision precision, const float* weight, const float* bias,
                          int outputs, int inputs);

// Round to nearest even, as the processor does; NaN stays NaN.
uint16_t ToBfloat16(float value);

}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_PACKED_WEIGHTS_H_
