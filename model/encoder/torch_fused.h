// Runs the small operations of a layer on LibTorch's tensors with this project's kernels (cuda/fused_kernels.h).
// Includes torch, so for use within model/encoder only.
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

// Starts a kernel on the current stream of its device, like cuda::FusedKernels::Launch. Tests use it to run kernels on
// the CPU.
using LaunchKernel = std::function<bool(cuda::Kernel kernel, int64_t blocks, void** arguments)>;

// The fused kernels. All tensors of a call have the same device and element type. Results are new tensors unless a
// method says otherwise. Inputs are made contiguous, except those that are changed in place, which must be. Multiple
// threads can call const methods. Methods throw torch's exceptions, and std::runtime_error if a kernel does not start.
class TorchFused {
 public:
  explicit TorchFused(LaunchKernel launch) : launch_(std::move(launch)) {}

  // Compiles and checks the kernels of a GPU for elements of `type`.
  // Errors: those of cuda::FusedKernels::Load and of Check.
  static absl::StatusOr<std::unique_ptr<TorchFused>> Make(c10::Device device, at::ScalarType type);

  // Compares the results of each kernel with LibTorch's operations. Does not throw. Errors: INTERNAL with the name of a
  // kernel that does not start or whose results differ, or with LibTorch's words.
  absl::Status Check(c10::Device device, at::ScalarType type) const;

  // Return the norm of x + residual [T, H], or of x if `residual` is undefined. If `sum` is not null, it receives x +
  // residual.
  at::Tensor AddLayerNorm(const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight,
                          const at::Tensor& bias, double epsilon, at::Tensor* sum = nullptr) const;
  at::Tensor AddRmsNorm(const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight, double epsilon,
                        at::Tensor* sum = nullptr) const;

  // Rotates the first `rotated` heads of qkv [T, columns] in place by table, float32 [2, T, R / 2]. Then multiplies the
  // first `queries` heads by scale, float32 [T], which may be undefined.
  void Rotate(const at::Tensor& qkv, const at::Tensor& table, const at::Tensor& scale, int64_t queries, int64_t rotated,
              int64_t head_dim) const;

  enum class Gate { kSilu = 0, kGelu = 1, kGeluTanh = 2 };
  // Returns activation(gate) * value [T, F] of `both` [T, 2 F], in which gate and value are side by side.
  at::Tensor GatedActivation(const at::Tensor& both, Gate gate) const;

  // Replaces x [T, F] by the exact GELU(x + bias).
  void BiasGelu(const at::Tensor& x, const at::Tensor& bias) const;

  // Returns the mean of x [T, H] over each span [P, H]. spans is int32 [P, 2] on the same device.
  at::Tensor SpanMean(const at::Tensor& x, const at::Tensor& spans) const;

  // Returns the result of a part of class `kind`, which must have passed CheckKnownPart, or nullopt if there is no
  // kernel for it.
  std::optional<at::Tensor> RunPart(const std::string& kind, const torch::jit::Module& part,
                                    const std::vector<c10::IValue>& inputs) const;

  // Runs AddLayerNorm or AddRmsNorm with the weights of `norm`, a part as above. Returns nullopt if there is no kernel
  // for it.
  std::optional<at::Tensor> RunNorm(const std::string& kind, const torch::jit::Module& norm, const at::Tensor& x,
                                    const at::Tensor& residual, at::Tensor* sum = nullptr) const;

  // Returns the pooled vectors [P, H], or nullopt if there is no kernel for the class of `pooling`.
  std::optional<at::Tensor> RunPooling(const torch::jit::Module& pooling, const at::Tensor& hidden,
                                       const at::Tensor& spans) const;

 private:
  absl::Status CompareWithTorch(c10::Device device, at::ScalarType type) const;

  template <typename... Arguments>
  void Launch(cuda::Kernel kernel, int64_t blocks, Arguments... arguments) const;

  const LaunchKernel launch_;
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_TORCH_FUSED_H_
