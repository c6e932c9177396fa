// Linear layers over rows: Y = activation(X W^T + bias), and gated ones: Y = activation(X G^T + g) (X W^T + bias).
#ifndef LONGEMBED_MODEL_ENCODER_CPU_MATMUL_H_
#define LONGEMBED_MODEL_ENCODER_CPU_MATMUL_H_

#include "model/encoder/activation.h"
#include "model/encoder/cpu/packed_weights.h"
#include "model/encoder/cpu/rows.h"

namespace longembed::cpu {

// Rows in the form that weights of a precision take: float32 or bfloat16 as they are, int8 as unsigned bytes 128 above
// their values. Each row holds whole steps, zeros (int8: any value) beyond the last input.
struct Operand {
  const std::byte* data = nullptr;
  ptrdiff_t stride = 0;           // Bytes.
  const float* scales = nullptr;  // int8: [rows]; value = scale * (byte - 128).

  Operand from(ptrdiff_t row) const {
    return {data + row * stride, stride, scales == nullptr ? nullptr : scales + row};
  }
};

// Outputs of panels [first_panel, last_panel) for `rows` rows; `out` is at row 0, output 0 of the whole layer.
void MultiplyRows(const PackedWeights& weights, const Operand& in, int rows, int first_panel, int last_panel,
                  Activation activation, Rows out);

// The same times the activated product with `gate`, a layer of equal inputs, outputs and precision.
void MultiplyGatedRows(const PackedWeights& weights, const PackedWeights& gate, const Operand& in, int rows,
                       int first_panel, int last_panel, Activation activation, Rows out);

// Rows of `width` columns as an operand of `precision`, written to `data`, rows `stride` bytes apart; int8 fills
// `scales`. The bytes up to a whole step are written too.
void ToOperand(Rows in, int rows, int width, Precision precision, std::byte* data, ptrdiff_t stride, float* scales);

}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_MATMUL_H_
