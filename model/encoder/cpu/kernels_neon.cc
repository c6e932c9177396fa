#include "model/encoder/cpu/simd_neon.h"
// The set's vectors must be included before these.
#include "model/encoder/cpu/kernel_sets.h"
#include "model/encoder/cpu/kernels_body.h"

namespace longembed::cpu {
namespace {

constexpr Kernels Plain() {
  Kernels kernels = SharedKernels("neon");
  kernels.multiply_int8 = Multiply<WideningDot>;
  return kernels;
}
constexpr Kernels WithDotprod() {
  Kernels kernels = SharedKernels("neon-dotprod");
  kernels.multiply_int8 = Multiply<DotprodDot>;
  return kernels;
}
constexpr Kernels WithBfloat16() {
  Kernels kernels = WithDotprod();
  kernels.name = "neon-bf16";
  kernels.bfloat16_rows = true;
  kernels.attention_element = Element::kBfloat16;
  kernels.multiply_bfloat16 = Multiply<Bfloat16Dot>;
  return kernels;
}

}  // namespace

constinit const Kernels kNeon = Plain();
constinit const Kernels kNeonDotprod = WithDotprod();
constinit const Kernels kNeonBfloat16 = WithBfloat16();

}  // namespace longembed::cpu
