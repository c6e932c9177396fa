// Runs the kernels of cuda/fused_kernels.cu on the CPU. The threads of a block are CPU threads, and blocks run one
// after the other. This is slow.
#ifndef LONGEMBED_TESTS_MODEL_ENCODER_CUDA_KERNELS_ON_CPU_H_
#define LONGEMBED_TESTS_MODEL_ENCODER_CUDA_KERNELS_ON_CPU_H_

#include "model/encoder/cuda/fused_kernels.h"

namespace longembed::cuda {

// Has the interface of FusedKernels::Launch. `arguments` are pointers to the kernel's arguments. Returns when the
// kernel has finished.
bool LaunchOnCpu(ElementType element, Kernel kernel, int64_t blocks, void** arguments);

}  // namespace longembed::cuda

#endif  // LONGEMBED_TESTS_MODEL_ENCODER_CUDA_KERNELS_ON_CPU_H_
