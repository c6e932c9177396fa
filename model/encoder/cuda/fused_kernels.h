// This project's kernels for a GPU (fused_kernels.cu). When a model is loaded, NVRTC, which is part of a CUDA build of
// LibTorch, compiles them for the GPU. No CUDA header or compiler is needed at build time.
#ifndef LONGEMBED_MODEL_ENCODER_CUDA_FUSED_KERNELS_H_
#define LONGEMBED_MODEL_ENCODER_CUDA_FUSED_KERNELS_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace longembed {

// Returns the source text of fused_kernels.cu.
std::string_view FusedKernelsSource();

}  // namespace longembed

namespace longembed::cuda {

enum class ElementType { kFloat32 = 0, kFloat16 = 1, kBfloat16 = 2 };

// The kernels, in the order of kKernelNames.
enum class Kernel { kAddLayerNorm, kAddRmsNorm, kRotate, kGatedActivation, kBiasGelu, kSpanMean };
inline constexpr std::array kKernelNames{"AddLayerNorm",    "AddRmsNorm", "Rotate",
                                         "GatedActivation", "BiasGelu",   "SpanMean"};

// Number of threads per block.
inline constexpr int kBlock = 256;

// Compiles the source for an architecture such as "sm_90". Returns binary code for the driver.
// Errors: UNAVAILABLE if NVRTC cannot be loaded; INTERNAL with NVRTC's log if it rejects the source.
absl::StatusOr<std::string> CompileFusedKernels(ElementType element, const std::string& architecture);

// The kernels, loaded on one GPU. Multiple threads can launch them.
class FusedKernels {
 public:
  // Compiles the kernels and loads them on a GPU.
  // REQUIRES: LibTorch has used the device on this thread, so that its context is current.
  // Errors: those of CompileFusedKernels; UNAVAILABLE if the driver cannot be loaded, does not tell the GPU's
  // architecture or rejects the code; INTERNAL if a kernel is missing.
  static absl::StatusOr<std::unique_ptr<FusedKernels>> Load(int device, ElementType element);

  // Starts `blocks` blocks on `stream`, a CUstream of the device. `arguments` point to the kernel's arguments.
  // Returns false if the driver fails. REQUIRES: as for Load.
  bool Launch(Kernel kernel, int64_t blocks, void* stream, void** arguments) const;

 private:
  FusedKernels() = default;

  // Functions of the loaded module. It is never unloaded, because the driver may shut down before this object is
  // destroyed.
  std::array<void*, kKernelNames.size()> functions_{};
};

}  // namespace longembed::cuda

#endif  // LONGEMBED_MODEL_ENCODER_CUDA_FUSED_KERNELS_H_
