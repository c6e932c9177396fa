// The kernel sets that kernels_*.cc define. Only for kernels.cc, which uses a set only if the processor supports it.
#ifndef LONGEMBED_MODEL_ENCODER_CPU_KERNEL_SETS_H_
#define LONGEMBED_MODEL_ENCODER_CPU_KERNEL_SETS_H_

#include "model/encoder/cpu/kernels.h"

namespace longembed::cpu {

extern const Kernels kAvx512, kAvx512Vnni, kAvx512Bfloat16, kAvx512Amx;  // x86-64.
extern const Kernels kAvx2, kAvx2Vnni;                                   // x86-64.
extern const Kernels kNeon, kNeonDotprod, kNeonBfloat16;                 // 64-bit Arm.

}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_KERNEL_SETS_H_
