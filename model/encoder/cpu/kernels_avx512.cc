#include "model/encoder/cpu/simd_avx512.h"
// The set's vectors must be included before these.
#include "model/encoder/cpu/attention_amx.h"
#include "model/encoder/cpu/kernel_sets.h"
#include "model/encoder/cpu/kernels_body.h"
#include "model/encoder/cpu/matmul_amx.h"

namespace longembed::cpu {
namespace {

constexpr Kernels Plain() {
  Kernels kernels = SharedKernels("avx512");
  kernels.multiply_int8 = Multiply<MaddDot>;
  kernels.int8_pairs = true;
  return kernels;
}
constexpr Kernels WithVnni() {
  Kernels kernels = SharedKernels("avx512-vnni");
  kernels.multiply_int8 = Multiply<VnniDot>;
  return kernels;
}
constexpr Kernels WithBfloat16() {
  Kernels kernels = WithVnni();
  kernels.name = "avx512-bf16";
  kernels.bfloat16_rows = true;
  kernels.attention_element = Element::kBfloat16;
  kernels.multiply_bfloat16 = Multiply<Bfloat16Dot>;
  return kernels;
}
constexpr Kernels WithAmx() {
  Kernels kernels = WithBfloat16();
  kernels.name = "avx512-amx";
  kernels.multiply_bfloat16 = Multiply<AmxBfloat16>;
  kernels.multiply_int8 = Multiply<AmxInt8>;
  kernels.attend = Attend<AmxAttention>;
  return kernels;
}

}  // namespace

constinit const Kernels kAvx512 = Plain();
constinit const Kernels kAvx512Vnni = WithVnni();
constinit const Kernels kAvx512Bfloat16 = WithBfloat16();
constinit const Kernels kAvx512Amx = WithAmx();

}  // namespace longembed::cpu
