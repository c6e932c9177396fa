// Kernels of our own for a GPU (fused_kernels.cu), compiled for it when a model is loaded: by NVRTC, which comes with a
// CUDA build of LibTorch. Needs no CUDA header and no CUDA compiler at build time.
#ifndef LONGEMBED_MODEL_ENCODER_CUDA_FUSED_KERNELS_H_
#define LONGEMBED_MODEL_ENCODER_CUDA_FUSED_KERNELS_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace longembed {

// The text of fused_kernels.cu.
std::string_view FusedKernelsSource();

}  // namespace longembed

namespace longembed::cuda {

enum class ElementType { kFloat32 = 0, kFloat16 = 1, kBfloat16 = 2 };

// In the order of kKernelNames.
enum class Kernel { kAddLayerNorm, kAddRmsNorm, kRotate, kGatedActivation, kBiasGelu, kSpanMean };
inline constexpr std::array kKernelNames{"AddLayerNorm",    "AddRmsNorm", "Rotate",
                                         "GatedActivation", "BiasGelu",   "SpanMean"};

// Threads of a block.
inline constexpr int kBlock = 256;

// Compiles the source for an architecture such as "sm_90". Returns the code that a driver loads.
// Errors: UNAVAILABLE, NVRTC cannot be loaded; INTERNAL, it refuses the source, with its log.
absl::StatusOr<std::string> CompileFusedKernels(ElementType element, const std::string& architecture);

// The kernels on one GPU. Multiple threads can launch them.
class FusedKernels {
 public:
  // REQUIRES: LibTorch has used the device on this thread, so that its context is current.
  // Errors: those of CompileFusedKernels; UNAVAILABLE, the driver cannot be loaded or refuses the code.
  static absl::StatusOr<std::unique_ptr<FusedKernels>> Load(int device, ElementType element);

  // Starts `blocks` blocks on a stream of the device, a CUstream. `arguments` point to the kernel's arguments.
  // REQUIRES: as above. Returns false where the driver refuses.
  bool Launch(Kernel kernel, int64_t blocks, void* stream, void** arguments) const;

 private:
  FusedKernels() = default;

  // Functions of the driver's module, which lives until the process ends: the driver may be gone before we are.
  std::array<void*, kKernelNames.size()> functions_{};
};

}  // namespace longembed::cuda

#endif  // LONGEMBED_MODEL_ENCODER_CUDA_FUSED_KERNELS_H_
