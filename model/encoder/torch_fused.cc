#include "model/encoder/torch_fused.h"

#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <exception>
#include <stdexcept>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/encoder/torch_attention.h"
#include "model/encoder/torch_graph.h"
#include "system/return_if_error.h"

namespace longembed {
namespace {

using cuda::Kernel;

const void* DataOf(const at::Tensor& tensor) { return tensor.defined() ? tensor.const_data_ptr() : nullptr; }

at::Tensor Contiguous(const at::Tensor& tensor) { return tensor.defined() ? tensor.contiguous() : tensor; }

absl::StatusOr<cuda::ElementType> ElementOf(at::ScalarType type) {
  if (type == at::kFloat) return cuda::ElementType::kFloat32;
  if (type == at::kHalf) return cuda::ElementType::kFloat16;
  if (type == at::kBFloat16) return cuda::ElementType::kBfloat16;
  return absl::UnavailableError(absl::StrCat("no kernels of element type ", at::toString(type)));
}

std::optional<TorchFused::Gate> GateOf(const std::string& kind) {
  if (kind == "SwiGlu") return TorchFused::Gate::kSilu;
  if (kind == "GeGlu") return TorchFused::Gate::kGelu;
  if (kind == "GeGluTanh") return TorchFused::Gate::kGeluTanh;
  return std::nullopt;
}

double NormEpsilonOf(const torch::jit::Module& norm) { return norm.type()->getConstant("epsilon").toDouble(); }

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight, double epsilon) {
  const at::Tensor wide = x.to(at::kFloat);
  return weight * (wide * at::rsqrt(wide.pow(2).mean({-1}, true) + epsilon)).to(x.scalar_type());
}

}  // namespace

template <typename... Arguments>
void TorchFused::Launch(Kernel kernel, int64_t blocks, Arguments... arguments) const {
  void* pointers[] = {static_cast<void*>(&arguments)...};
  if (launch_(kernel, blocks, pointers)) return;
  throw std::runtime_error(
      absl::StrCat("the GPU's driver does not start kernel ", cuda::kKernelNames[static_cast<size_t>(kernel)]));
}

absl::StatusOr<std::unique_ptr<TorchFused>> TorchFused::Make(c10::Device device, at::ScalarType type) {
  const absl::StatusOr<cuda::ElementType> element = ElementOf(type);
  if (!element.ok()) return element.status();
  // The driver loads and starts kernels in the context of the thread's current device. LibTorch's operations leave that
  // as it was, so it may be the device of another model.
  const c10::DeviceGuard current(device);
  auto loaded = cuda::FusedKernels::Load(device.index() < 0 ? 0 : device.index(), *element);
  if (!loaded.ok()) return loaded.status();
  const std::shared_ptr<const cuda::FusedKernels> kernels = *std::move(loaded);
  auto fused = std::make_unique<TorchFused>([kernels, device](Kernel kernel, int64_t blocks, void** arguments) {
    const c10::impl::VirtualGuardImpl guard(device.type());
    return kernels->Launch(kernel, blocks, guard.getStream(device).native_handle(), arguments);
  });
  RETURN_IF_ERROR(fused->Check(device, type));
  return fused;
}

at::Tensor TorchFused::AddLayerNorm(const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight,
                                    const at::Tensor& bias, double epsilon, at::Tensor* sum) const {
  const at::Tensor rows = Contiguous(x), other = Contiguous(residual), norm = at::empty_like(rows);
  if (sum != nullptr) *sum = at::empty_like(rows);
  Launch(Kernel::kAddLayerNorm, rows.size(0), DataOf(rows), DataOf(other), DataOf(weight), DataOf(bias),
         static_cast<float>(epsilon), DataOf(sum == nullptr ? at::Tensor() : *sum), DataOf(norm),
         static_cast<int>(rows.size(1)));
  return norm;
}

at::Tensor TorchFused::AddRmsNorm(const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight,
                                  double epsilon, at::Tensor* sum) const {
  const at::Tensor rows = Contiguous(x), other = Contiguous(residual), norm = at::empty_like(rows);
  if (sum != nullptr) *sum = at::empty_like(rows);
  Launch(Kernel::kAddRmsNorm, rows.size(0), DataOf(rows), DataOf(other), DataOf(weight), static_cast<float>(epsilon),
         DataOf(sum == nullptr ? at::Tensor() : *sum), DataOf(norm), static_cast<int>(rows.size(1)));
  return norm;
}

void TorchFused::Rotate(const at::Tensor& qkv, const at::Tensor& table, const at::Tensor& scale, int64_t queries,
                        int64_t rotated, int64_t head_dim) const {
  TORCH_CHECK(qkv.is_contiguous(), "qkv is not contiguous");
  const at::Tensor cos = table.select(0, 0).contiguous(), sin = table.select(0, 1).contiguous();
  Launch(Kernel::kRotate, qkv.size(0), DataOf(qkv), DataOf(cos), DataOf(sin), DataOf(scale), static_cast<int>(queries),
         static_cast<int>(rotated), static_cast<int>(head_dim), static_cast<int>(cos.size(1)),
         static_cast<int>(qkv.size(1)));
}

at::Tensor TorchFused::GatedActivation(const at::Tensor& both, Gate gate) const {
  const at::Tensor rows = Contiguous(both);
  const int64_t inner = rows.size(1) / 2;
  const at::Tensor out = at::empty({rows.size(0), inner}, rows.options());
  Launch(Kernel::kGatedActivation, rows.size(0), DataOf(rows), DataOf(out), static_cast<int>(inner),
         static_cast<int>(gate));
  return out;
}

void TorchFused::BiasGelu(const at::Tensor& x, const at::Tensor& bias) const {
  TORCH_CHECK(x.is_contiguous(), "x is not contiguous");
  Launch(Kernel::kBiasGelu, x.size(0), DataOf(x), DataOf(bias), static_cast<int>(x.size(1)));
}

at::Tensor TorchFused::SpanMean(const at::Tensor& x, const at::Tensor& spans) const {
  const at::Tensor rows = Contiguous(x), bounds = Contiguous(spans);
  const at::Tensor out = at::empty({bounds.size(0), rows.size(1)}, rows.options());
  Launch(Kernel::kSpanMean, bounds.size(0), DataOf(rows), DataOf(bounds), DataOf(out), static_cast<int>(rows.size(1)));
  return out;
}

std::optional<at::Tensor> TorchFused::RunPart(const std::string& kind, const torch::jit::Module& part,
                                              const std::vector<c10::IValue>& inputs) const {
  const auto input = [&inputs](size_t i) { return inputs[i].toTensor(); };
  const at::Tensor residual = inputs.size() > 1 ? input(1) : at::Tensor();
  if (std::optional<at::Tensor> norm = RunNorm(kind, part, input(0), residual)) return norm;
  if (const std::optional<Gate> gate = GateOf(kind)) return GatedActivation(input(0), *gate);
  if (kind != "LinearGelu") return std::nullopt;
  const at::Tensor products = at::linear(input(0), part.attr("weight").toTensor());
  BiasGelu(products, part.attr("bias").toTensor());
  return products;
}

std::optional<at::Tensor> TorchFused::RunNorm(const std::string& kind, const torch::jit::Module& norm,
                                              const at::Tensor& x, const at::Tensor& residual, at::Tensor* sum) const {
  const auto weight = [&norm](const char* name) { return norm.attr(name).toTensor(); };
  if (kind == "ResidualNorm" || kind == "LayerNorm")
    return AddLayerNorm(x, residual, weight("weight"), weight("bias"), NormEpsilonOf(norm), sum);
  if (kind == "RmsNorm") return AddRmsNorm(x, residual, weight("weight"), NormEpsilonOf(norm), sum);
  return std::nullopt;
}

std::optional<at::Tensor> TorchFused::RunPooling(const torch::jit::Module& pooling, const at::Tensor& hidden,
                                                 const at::Tensor& spans) const {
  if (!CheckKnownPart(pooling).ok()) return std::nullopt;
  const std::string kind = ClassOf(pooling);
  const at::Tensor bounds = spans.to(hidden.device());
  if (kind == "SpanMean") return SpanMean(hidden, bounds);
  if (kind != "NormedSpanMean") return std::nullopt;
  const torch::jit::Module norm = pooling.attr("norm").toModule();
  if (!CheckKnownPart(norm).ok()) return std::nullopt;
  const std::optional<at::Tensor> normed = RunNorm(ClassOf(norm), norm, hidden, {});
  if (!normed.has_value()) return std::nullopt;
  return SpanMean(*normed, bounds);
}

absl::Status TorchFused::Check(c10::Device device, at::ScalarType type) const {
  try {
    return CompareWithTorch(device, type);
  } catch (const std::exception& error) {
    return absl::InternalError(error.what());
  }
}

absl::Status TorchFused::CompareWithTorch(c10::Device device, at::ScalarType type) const {
  const c10::InferenceMode inference;
  const at::TensorOptions options = at::TensorOptions(device).dtype(type), wide = options.dtype(at::kFloat);
  // In fp16 and bf16, the tolerance is about eight units in the last place of a value near 1. In fp32, it is wider.
  const double tolerance = type == at::kFloat ? 1e-4 : type == at::kHalf ? 8e-3 : 6e-2;
  const auto random = [&](at::IntArrayRef size) {
    return at::sin(at::arange(c10::multiply_integers(size), wide) * 12.9898).mul(2).view(size).to(type);
  };
  const auto check = [&](Kernel kernel, const at::Tensor& ours, const at::Tensor& expected) {
    const auto difference = (ours.to(at::kFloat) - expected.to(at::kFloat)).abs().max().item<float>();
    if (difference <= tolerance) return absl::OkStatus();  // NaN fails this comparison.
    return absl::InternalError(absl::StrCat("kernel ", cuda::kKernelNames[static_cast<size_t>(kernel)], " is ",
                                            difference, " away from LibTorch"));
  };
  const int64_t rows = 5, width = 291, head_dim = 24, half = 8;
  const at::Tensor x = random({rows, width}), residual = random({width, rows}).t().contiguous();
  const at::Tensor weight = random({width}), bias = random({width + 1}).slice(0, 1).contiguous();
  at::Tensor layer_sum, rms_sum;
  absl::Status status = check(Kernel::kAddLayerNorm, AddLayerNorm(x, residual, weight, bias, 1e-5, &layer_sum),
                              at::layer_norm(x + residual, {width}, weight, bias));
  status.Update(check(Kernel::kAddLayerNorm, layer_sum, x + residual));
  status.Update(
      check(Kernel::kAddRmsNorm, AddRmsNorm(x, residual, weight, 1e-5, &rms_sum), RmsNorm(x + residual, weight, 1e-5)));
  status.Update(check(Kernel::kAddRmsNorm, rms_sum, x + residual));

  const at::Tensor angles = at::arange(rows * half, wide).view({1, rows, half});
  const at::Tensor table = at::cat({at::cos(angles), at::sin(angles)}), scale = at::arange(1, rows + 1, wide) / 4;
  const at::Tensor qkv = random({rows, 4 * head_dim}), heads = qkv.view({rows, 4, head_dim});
  const at::Tensor expected = at::cat({longembed::Rotate(heads.narrow(1, 0, 3), table), heads.narrow(1, 3, 1)}, 1);
  const at::Tensor scaled =
      at::cat({expected.narrow(1, 0, 2) * scale.view({-1, 1, 1}).to(type), expected.narrow(1, 2, 2)}, 1);
  const at::Tensor rotated = qkv.clone();
  Rotate(rotated, table, scale, 2, 3, head_dim);
  status.Update(check(Kernel::kRotate, rotated, scaled.flatten(1)));

  const std::vector<at::Tensor> parts = random({rows, 2 * width}).chunk(2, 1);
  const at::Tensor both = at::cat(parts, 1);
  status.Update(check(Kernel::kGatedActivation, GatedActivation(both, Gate::kSilu), at::silu(parts[0]) * parts[1]));
  status.Update(check(Kernel::kGatedActivation, GatedActivation(both, Gate::kGelu), at::gelu(parts[0]) * parts[1]));
  status.Update(
      check(Kernel::kGatedActivation, GatedActivation(both, Gate::kGeluTanh), at::gelu(parts[0], "tanh") * parts[1]));
  const at::Tensor activated = x.clone();
  BiasGelu(activated, bias);
  status.Update(check(Kernel::kBiasGelu, activated, at::gelu(x + bias)));
  const at::Tensor spans = at::tensor({0, 5, 2, 3, 1, 4}, at::kInt).view({3, 2}).to(device);
  status.Update(
      check(Kernel::kSpanMean, SpanMean(x, spans), at::stack({x.mean(0), x.select(0, 2), x.slice(0, 1, 4).mean(0)})));
  return status;
}

}  // namespace longembed
