// A layer's small parts by kernels of our own (cuda/fused_kernels.h), over LibTorch's tensors. Includes torch; for
// model/encoder's own use.
#ifndef LONGEMBED_MODEL_ENCODER_TORCH_FUSED_H_
#define LONGEMBED_MODEL_ENCODER_TORCH_FUSED_H_

#include <torch/script.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "model/encoder/cuda/fused_kernels.h"

namespace longembed {

// Starts a kernel on the current stream of its device, as cuda::FusedKernels::Launch does. Tests run kernels on the
// CPU.
using LaunchKernel = std::function<bool(cuda::Kernel kernel, int64_t blocks, void** arguments)>;

// Tensors are of one device and element type, and results are new ones unless a method says otherwise. Rows of inputs
// are made contiguous. Multiple threads can call const methods. Methods throw what torch throws, and where a kernel
// does not start.
class TorchFused {
 public:
  explicit TorchFused(LaunchKernel launch) : launch_(std::move(launch)) {}

  // The kernels of a GPU, for elements of `type`.
  // Errors: those of cuda::FusedKernels::Load; INTERNAL, a kernel gives something else than LibTorch.
  static absl::StatusOr<std::unique_ptr<TorchFused>> Make(c10::Device device, at::ScalarType type);

  // Compares each kernel with LibTorch's operations. Errors: INTERNAL, naming the kernel that differs.
  absl::Status Check(c10::Device device, at::ScalarType type) const;

  // Norms of x + residual [T, H]; of x where `residual` is undefined. `sum`, where not null, becomes x + residual.
  at::Tensor AddLayerNorm(const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight,
                          const at::Tensor& bias, double epsilon, at::Tensor* sum = nullptr) const;
  at::Tensor AddRmsNorm(const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight, double epsilon,
                        at::Tensor* sum = nullptr) const;

  // Rotates the first `rotated` heads of qkv [T, columns] in place by float32 [2, T, R / 2], and multiplies the first
  // `queries` of them by float32 `scale` [T], which may be undefined.
  void Rotate(const at::Tensor& qkv, const at::Tensor& table, const at::Tensor& scale, int64_t queries, int64_t rotated,
              int64_t head_dim) const;

  enum class Gate { kSilu = 0, kGelu = 1, kGeluTanh = 2 };
  // Gate and value side by side [T, 2 F] -> [T, F].
  at::Tensor GatedActivation(const at::Tensor& both, Gate gate) const;

  // GELU(x + bias) [T, F], exact, in place.
  void BiasGelu(const at::Tensor& x, const at::Tensor& bias) const;

  // x [T, H], spans int32 [P, 2] on the same device -> [P, H].
  at::Tensor SpanMean(const at::Tensor& x, const at::Tensor& spans) const;

  // The result of a part of class `kind`, which CheckKnownPart knows; nothing where there is no kernel for it.
  std::optional<at::Tensor> RunPart(const std::string& kind, const torch::jit::Module& part,
                                    const std::vector<c10::IValue>& inputs) const;

  // As AddLayerNorm and AddRmsNorm, by a norm that is a part as above; nothing where there is no kernel for it.
  std::optional<at::Tensor> RunNorm(const std::string& kind, const torch::jit::Module& norm, const at::Tensor& x,
                                    const at::Tensor& residual, at::Tensor* sum = nullptr) const;

  // Pooled vectors [P, H]; nothing where there is no kernel for the class of `pooling`.
  std::optional<at::Tensor> RunPooling(const torch::jit::Module& pooling, const at::Tensor& hidden,
                                       const at::Tensor& spans) const;

 private:
  template <typename... Arguments>
  void Launch(cuda::Kernel kernel, int64_t blocks, Arguments... arguments) const;

  const LaunchKernel launch_;
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_TORCH_FUSED_H_
