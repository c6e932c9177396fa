// The kernels of one instruction set, and which of them this processor runs.
//
// One source serves all sets: matmul_body.h, attention_body.h and rowwise_body.h are compiled once for each of AVX-512,
// AVX2 and NEON (kernels_*.cc) over that set's vectors (simd_*.h). Sets that share vectors differ in their products:
//
//   avx512-amx      avx512-bf16, with products of bfloat16 and int8 by AMX tiles
//   avx512-bf16     avx512-vnni, with products of bfloat16 (AVX512-BF16)
//   avx512-vnni     avx512, with products of int8 by one instruction (AVX512-VNNI)
//   avx512          AVX-512 F, BW, DQ and VL; products of int8 by three instructions
//   avx2-vnni       avx2, with products of int8 by one instruction (AVX-VNNI)
//   avx2            AVX2 and FMA
//   neon-bf16       neon-dotprod, with products of bfloat16 (FEAT_BF16)
//   neon-dotprod    neon, with products of int8 by one instruction (FEAT_DotProd)
//   neon            every 64-bit Arm
//
// Where a set has no products of bfloat16, rows are float32 and weights are kept in bfloat16 and widened.
#ifndef LONGEMBED_MODEL_ENCODER_CPU_KERNELS_H_
#define LONGEMBED_MODEL_ENCODER_CPU_KERNELS_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/encoder/activation.h"
#include "model/encoder/cpu/attention.h"
#include "model/encoder/cpu/rows.h"
#include "model/encoder/precision.h"

namespace longembed::cpu {

struct PackedWeights;

// Rows in the form that weights of a precision take: float32 or bfloat16 as they are, int8 as bytes `int8_middle` above
// their values. Each row holds whole steps of four bytes, zeros (int8: any value) beyond the last input.
struct Operand {
  const std::byte* data = nullptr;
  ptrdiff_t stride = 0;           // Bytes.
  const float* scales = nullptr;  // int8: [rows]; value = scale * (byte - int8_middle).

  Operand from(ptrdiff_t row) const {
    return {data + row * stride, stride, scales == nullptr ? nullptr : scales + row};
  }
};

// A linear layer over rows: Y = activation(X W^T + bias); with a `gate`, a layer of equal inputs, outputs and
// precision: Y = activation(X G^T + g) (X W^T + bias). Computes the outputs of panels [first_panel, last_panel) for
// `rows` rows; `out` is at row 0, output 0 of the whole layer.
using MultiplyKernel = void(const PackedWeights& weights, const PackedWeights* gate, const Operand& in, int rows,
                            int first_panel, int last_panel, Activation activation, Rows out);

// Immutable. Multiple threads can call one kernel; none allocates or throws.
struct Kernels {
  const char* name = "";

  int lanes = 0;          // Of 32 bits, of a vector.
  int panel_outputs = 0;  // Of packed weights: three vectors.
  // Whether rows may be bfloat16, and are where weights are. Without it `multiply_bfloat16` takes float32 rows.
  bool bfloat16_rows = false;
  // What queries, keys and values are where weights are not float32: bfloat16 only where its products are faster.
  Element attention_element = Element::kFloat32;
  int int8_middle = 0;  // Of a row's bytes: 128 where they are unsigned, 0 where they are signed.
  // Whether products of two neighboring inputs, 2 i and 2 i + 1, are added up in 16 bits: then the weights of one sign
  // of such a pair sum to 128 at most, so that 255 times that is no overflow.
  bool int8_pairs = false;

  MultiplyKernel* multiply_float32 = nullptr;
  MultiplyKernel* multiply_bfloat16 = nullptr;
  MultiplyKernel* multiply_int8 = nullptr;

  // Rows of `width` columns as an operand of `precision`, written to `data`, rows `stride` bytes apart; int8 fills
  // `scales`, with NaN for a row that is not finite. The bytes up to a whole step are written too.
  void (*to_operand)(Rows in, int rows, int width, Precision precision, std::byte* data, ptrdiff_t stride,
                     float* scales) = nullptr;

  // Bytes of scratch memory that a call of `attend` needs.
  size_t (*attention_scratch)(int head_dim) = nullptr;
  // Context of tokens [first_query, last_query), at most kMaxQueries, in heads [first_head, last_head). Calls for other
  // queries or heads of the same sequence may run at the same time. `scratch` is on a boundary of 64 bytes. Products
  // are computed in the element type of qkv, sums and softmax in float32.
  void (*attend)(const AttentionShape& shape, const AttentionInput& input, int first_head, int last_head,
                 int first_query, int last_query, std::byte* scratch) = nullptr;

  // Row by row. Statistics and sums are float32 whatever the rows hold. Widths are any number of columns.

  // out = LayerNorm(a + b) * weight + bias; b.data may be null. `out` may be a or b.
  void (*layer_norm)(Rows a, Rows b, Rows out, int rows, int width, const float* weight, const float* bias,
                     float epsilon) = nullptr;
  // out = in / rms(in) * weight. `out` may be in.
  void (*rms_norm)(Rows in, Rows out, int rows, int width, const float* weight, float epsilon) = nullptr;
  // out = a + b. `out` may be a or b.
  void (*add)(Rows a, Rows b, Rows out, int rows, int width) = nullptr;
  // RMS norms of single heads: `in` holds heads + 2 * key_value_heads of head_dim columns, queries, keys and values
  // side by side. Each query is normed with `query` [head_dim], each key with `key`; values are copied. `out` may be
  // in.
  void (*head_norm)(Rows in, Rows out, int rows, int heads, int key_value_heads, int head_dim, const float* query,
                    const float* key, float epsilon) = nullptr;
  // out[r] = (1 - share) * table[lower] + share * table[lower + 1], where position = lower + share; clamped to the
  // table's ends. A whole position copies its row to the last bit.
  void (*interpolate)(const float* table, int table_rows, const float* positions, Rows out, int rows,
                      int width) = nullptr;
  // out[r] = table[ids[r]]. Ids have been checked.
  void (*gather)(const float* table, const int32_t* ids, Rows out, int rows, int width) = nullptr;
  // The mean of `rows` rows (at least one), float32 [width].
  void (*mean)(Rows in, int rows, int width, float* out) = nullptr;

  MultiplyKernel* multiply(Precision precision) const {
    return precision == Precision::kFloat32    ? multiply_float32
           : precision == Precision::kBfloat16 ? multiply_bfloat16
                                               : multiply_int8;
  }
};

// Those that this processor runs, fastest first. Never empty on x86-64 with AVX2 and on 64-bit Arm.
std::span<const Kernels* const> AvailableKernels();

// The fastest for an empty name. Errors: FAILED_PRECONDITION when this processor has no kernels, or not the named ones;
// the message names those that it has.
absl::StatusOr<const Kernels*> FindKernels(const std::string& name);

// Runs products, attention and norms on the calling thread over a few rows and compares with plain loops: some cores of
// some processors are known to compute wrongly (libdeflate issue 451). Takes a millisecond. Errors: INTERNAL, naming
// the kernel.
absl::Status CheckKernels(const Kernels& kernels);

// The same on each core that the process may use, at once. Errors: INTERNAL, naming the core.
absl::Status CheckKernelsOnEveryCore(const Kernels& kernels);

}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_KERNELS_H_
