// The kernels of an instruction set, and functions that find the sets that this processor supports.
//
// All sets share one source: matmul_body.h, attention_body.h and rowwise_body.h are compiled once each for AVX-512,
// AVX2 and NEON (kernels_*.cc) with that set's vectors (simd_*.h). Sets with the same vectors differ in their products:
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
// In a set without bfloat16 products, rows are float32, and weights are stored in bfloat16 and widened when loaded.
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

// Rows in the form that a product with weights of a precision needs. float32 and bfloat16 rows are stored as such; int8
// rows as bytes that are `int8_middle` above their values. Each row consists of whole steps of four bytes. Beyond the
// last input there are zeros (int8: any values).
struct Operand {
  const std::byte* data = nullptr;
  ptrdiff_t stride = 0;  // In bytes.
  // For int8: [rows], where value = scale * (byte - int8_middle).
  const float* scales = nullptr;

  Operand from(ptrdiff_t row) const {
    return {data + row * stride, stride, scales == nullptr ? nullptr : scales + row};
  }
};

// Computes a linear layer over rows: Y = activation(X W^T + bias). With a `gate` (weights G and bias g of a layer with
// equal inputs, outputs and precision): Y = activation(X G^T + g) (X W^T + bias). Computes the outputs of panels
// [first_panel, last_panel) for `rows` rows. `out` is at row 0, output 0 of the whole layer.
using MultiplyKernel = void(const PackedWeights& weights, const PackedWeights* gate, const Operand& in, int rows,
                            int first_panel, int last_panel, Activation activation, Rows out);

// A set of kernels. Immutable. Multiple threads can call a kernel at the same time. Kernels neither allocate nor throw.
struct Kernels {
  const char* name = "";

  int lanes = 0;          // Lanes of 32 bits per vector.
  int panel_outputs = 0;  // Outputs per panel of packed weights: three vectors.
  // Whether rows may be bfloat16, which they are for bfloat16 weights. If false, `multiply_bfloat16` takes float32
  // rows.
  bool bfloat16_rows = false;
  // Element type of queries, keys and values if weights are not float32. bfloat16 only if its products are faster.
  Element attention_element = Element::kFloat32;
  int int8_middle = 0;  // Byte that stands for 0 in int8 rows: 128 if bytes are unsigned, 0 if signed.
  // Whether the products of the neighboring inputs 2 i and 2 i + 1 are added in 16 bits. If so, the weights of such a
  // pair that have the same sign are quantized to a sum of at most 128 in magnitude, because 255 * 128 does not
  // overflow.
  bool int8_pairs = false;

  MultiplyKernel* multiply_float32 = nullptr;
  MultiplyKernel* multiply_bfloat16 = nullptr;
  MultiplyKernel* multiply_int8 = nullptr;

  // Converts rows of `width` columns to an operand of `precision`. Writes to `data` with rows `stride` bytes apart,
  // including the bytes up to a whole step. For int8, also writes `scales`, with NaN for a row that is not finite.
  void (*to_operand)(Rows in, int rows, int width, Precision precision, std::byte* data, ptrdiff_t stride,
                     float* scales) = nullptr;

  // Returns the bytes of scratch memory that a call of `attend` needs.
  size_t (*attention_scratch)(int head_dim) = nullptr;
  // Computes the contexts of tokens [first_query, last_query), at most kMaxQueries, in heads [first_head, last_head).
  // Calls for other queries or heads of the same sequence may run at the same time. `scratch` is aligned to 64 bytes.
  // Products are computed in the element type of qkv, sums and softmax in float32.
  void (*attend)(const AttentionShape& shape, const AttentionInput& input, int first_head, int last_head,
                 int first_query, int last_query, std::byte* scratch) = nullptr;

  // The kernels below process each row independently. Statistics and sums are float32 for every element type. Rows may
  // have any number of columns.

  // out = LayerNorm(a + b) * weight + bias; b.data may be null. `out` may be a or b.
  void (*layer_norm)(Rows a, Rows b, Rows out, int rows, int width, const float* weight, const float* bias,
                     float epsilon) = nullptr;
  // out = in / rms(in) * weight. `out` may be in.
  void (*rms_norm)(Rows in, Rows out, int rows, int width, const float* weight, float epsilon) = nullptr;
  // out = a + b. `out` may be a or b.
  void (*add)(Rows a, Rows b, Rows out, int rows, int width) = nullptr;
  // RMS norms of each head. `in` holds heads + 2 * key_value_heads heads of head_dim columns: queries, keys and values
  // side by side. Each query is normalized with the weights `query` [head_dim], and each key with `key`. Values are
  // copied. `out` may be in.
  void (*head_norm)(Rows in, Rows out, int rows, int heads, int key_value_heads, int head_dim, const float* query,
                    const float* key, float epsilon) = nullptr;
  // out[r] = (1 - share) * table[lower] + share * table[lower + 1], where position = lower + share. Positions are
  // clamped to the table's ends. For a whole position, the result is bitwise equal to the table's row.
  void (*interpolate)(const float* table, int table_rows, const float* positions, Rows out, int rows,
                      int width) = nullptr;
  // out[r] = table[ids[r]]. Ids must be valid.
  void (*gather)(const float* table, const int32_t* ids, Rows out, int rows, int width) = nullptr;
  // out = the mean of `rows` rows (at least one), float32 [width].
  void (*mean)(Rows in, int rows, int width, float* out) = nullptr;

  MultiplyKernel* multiply(Precision precision) const {
    return precision == Precision::kFloat32    ? multiply_float32
           : precision == Precision::kBfloat16 ? multiply_bfloat16
                                               : multiply_int8;
  }
};

// Returns the sets that this processor supports, fastest first. Never empty on x86-64 with AVX2 and on 64-bit Arm.
std::span<const Kernels* const> AvailableKernels();

// Returns the set with this name, or the fastest one for an empty name. Errors: FAILED_PRECONDITION if this processor
// supports no set, or not the named one; the message lists those that it supports.
absl::StatusOr<const Kernels*> FindKernels(const std::string& name);

// Runs products, attention and norms over a few rows on the calling thread, and compares the results with plain loops.
// Some cores of some processors are known to compute wrong results (libdeflate issue 451). Takes a millisecond. Errors:
// INTERNAL with the name of the kernel.
absl::Status CheckKernels(const Kernels& kernels);

// Runs CheckKernels on every core that the process may use, one after the other on each of `threads` threads: a
// container may use a part of the time of hundreds of cores, and may have no more threads than that part needs. Errors:
// INTERNAL with the number of the core. Throws std::system_error if the system refuses a thread.
absl::Status CheckKernelsOnEveryCore(const Kernels& kernels, int threads);

}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_KERNELS_H_
