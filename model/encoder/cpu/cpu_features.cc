#include "model/encoder/cpu/cpu_features.h"

namespace longembed::cpu {

#if defined(__x86_64__)

std::string MissingFor(Precision precision) {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl")) {
    return "this processor has no AVX-512 (F, BW, DQ, VL)";
  }
  if (precision == Precision::kInt8 && !__builtin_cpu_supports("avx512vnni"))
    return "this processor has no AVX512-VNNI";
  if (precision == Precision::kFloat16) return "fp16 is for CUDA only";
  return "";
}

bool HasBfloat16Products() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512bf16");
}

#else

bool HasBfloat16Products() { return false; }

std::string MissingFor(Precision) { return "this build has kernels for x86-64 only"; }

#endif

}  // namespace longembed::cpu
