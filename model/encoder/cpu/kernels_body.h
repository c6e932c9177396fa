// The table of an instruction set's kernels. For kernels_*.cc, which include it after the set's vectors.
#ifndef LONGEMBED_MODEL_ENCODER_CPU_KERNELS_BODY_H_
#define LONGEMBED_MODEL_ENCODER_CPU_KERNELS_BODY_H_

#include "model/encoder/cpu/attention_body.h"
#include "model/encoder/cpu/kernels.h"
#include "model/encoder/cpu/matmul_body.h"
#include "model/encoder/cpu/rowwise_body.h"

namespace longembed::cpu {
namespace {

// Returns the kernels that sets with the same vectors share: all except the bfloat16 and int8 products.
constexpr Kernels SharedKernels(const char* name) {
  return {.name = name,
          .lanes = kLanes,
          .panel_outputs = kPanelOutputs,
          .bfloat16_rows = false,
          .int8_middle = kInt8Middle,
          .multiply_float32 = Multiply<Float32Dot>,
          .multiply_bfloat16 = Multiply<WidenedDot>,
          .to_operand = ToOperand,
          .attention_scratch = AttentionScratch,
          .attend = Attend<void>,
          .layer_norm = LayerNormRows,
          .rms_norm = RmsNormRows,
          .add = AddRows,
          .head_norm = HeadNormRows,
          .interpolate = InterpolateRows,
          .gather = GatherRows,
          .mean = MeanOfRows};
}

}  // namespace
}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_KERNELS_BODY_H_
