#include "model/encoder/cpu/simd_avx2.h"
// The set's vectors must be included before these.
#include "model/encoder/cpu/kernel_sets.h"
#include "model/encoder/cpu/kernels_body.h"

namespace longembed::cpu {
namespace {

constexpr Kernels Plain() {
  Kernels kernels = SharedKernels("avx2");
  kernels.multiply_int8 = Multiply<MaddDot>;
  kernels.int8_pairs = true;
  return kernels;
}
constexpr Kernels WithVnni() {
  Kernels kernels = SharedKernels("avx2-vnni");
  kernels.multiply_int8 = Multiply<VnniDot>;
  return kernels;
}

}  // namespace

constinit const Kernels kAvx2 = Plain();
constinit const Kernels kAvx2Vnni = WithVnni();

}  // namespace longembed::cpu
