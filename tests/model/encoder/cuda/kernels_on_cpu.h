// Runs the kernels of cuda/fused_kernels.cu on the CPU: a block's threads are threads, one block after the other. Slow.
#ifndef LONGEMBED_TESTS_MODEL_ENCODER_CUDA_KERNELS_ON_CPU_H_
#define LONGEMBED_TESTS_MODEL_ENCODER_CUDA_KERNELS_ON_CPU_H_

#include "model/encoder/cuda/fused_kernels.h"

namespace longembed::cuda {

// As FusedKernels::Launch; `arguments` point to the kernel's arguments. Returns when the kernel has ended.
bool LaunchOnCpu(ElementType element, Kernel kernel, int64_t blocks, void** arguments);

}  // namespace longembed::cuda

#endif  // LONGEMBED_TESTS_MODEL_ENCODER_CUDA_KERNELS_ON_CPU_H_
