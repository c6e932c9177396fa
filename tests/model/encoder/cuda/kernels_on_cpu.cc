#include "tests/model/encoder/cuda/kernels_on_cpu.h"

#include <barrier>
#include <bit>
#include <cmath>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

// Replacements for what fused_kernels.cu uses from CUDA.
#define BLOCK 4
#define KERNEL static void
#define __device__
#define __shared__ static

namespace longembed::cuda {
namespace {

struct Index {
  int x = 0;
};
thread_local Index threadIdx, blockIdx;

std::barrier<>& TheBarrier() {
  static std::barrier barrier(BLOCK);
  return barrier;
}
void __syncthreads() { TheBarrier().arrive_and_wait(); }
float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }
unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }

#if defined(__aarch64__)
using Half = __fp16;  // GCC 12 does not support _Float16 on this platform.
#else
using Half = _Float16;
#endif
float HalfToFloat(unsigned short bits) { return static_cast<float>(std::bit_cast<Half>(bits)); }
unsigned short FloatToHalf(float value) { return std::bit_cast<unsigned short>(static_cast<Half>(value)); }

namespace float32 {
#define ELEMENT 0
#include "model/encoder/cuda/fused_kernels.cu"
#undef ELEMENT
}  // namespace float32
namespace float16 {
#define ELEMENT 1
#include "model/encoder/cuda/fused_kernels.cu"
#undef ELEMENT
}  // namespace float16
namespace bfloat16 {
#define ELEMENT 2
#include "model/encoder/cuda/fused_kernels.cu"
#undef ELEMENT
}  // namespace bfloat16

template <typename T>
T Argument(const void* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

template <typename... Arguments, size_t... I>
void Call(void (*kernel)(Arguments...), void** arguments, std::index_sequence<I...>) {
  kernel(Argument<Arguments>(arguments[I])...);
}

template <typename... Arguments>
bool Run(void (*kernel)(Arguments...), int64_t blocks, void** arguments) {
  std::vector<std::jthread> threads;
  for (int thread = 0; thread < BLOCK; ++thread) {
    threads.emplace_back([=] {
      threadIdx.x = thread;
      for (int64_t block = 0; block < blocks; ++block) {
        blockIdx.x = static_cast<int>(block);
        Call(kernel, arguments, std::index_sequence_for<Arguments...>());
        __syncthreads();
      }
    });
  }
  return true;
}

#define LAUNCH(element)                                        \
  switch (kernel) {                                            \
    case Kernel::kAddLayerNorm:                                \
      return Run(element::AddLayerNorm, blocks, arguments);    \
    case Kernel::kAddRmsNorm:                                  \
      return Run(element::AddRmsNorm, blocks, arguments);      \
    case Kernel::kRotate:                                      \
      return Run(element::Rotate, blocks, arguments);          \
    case Kernel::kGatedActivation:                             \
      return Run(element::GatedActivation, blocks, arguments); \
    case Kernel::kBiasGelu:                                    \
      return Run(element::BiasGelu, blocks, arguments);        \
    case Kernel::kSpanMean:                                    \
      return Run(element::SpanMean, blocks, arguments);        \
  }

}  // namespace

bool LaunchOnCpu(ElementType element, Kernel kernel, int64_t blocks, void** arguments) {
  switch (element) {
    case ElementType::kFloat32:
      LAUNCH(float32);
      break;
    case ElementType::kFloat16:
      LAUNCH(float16);
      break;
    case ElementType::kBfloat16:
      LAUNCH(bfloat16);
      break;
  }
  return false;
}

}  // namespace longembed::cuda
