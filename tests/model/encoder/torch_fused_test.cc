// Runs the GPU's kernels on the CPU, and compares them with LibTorch's operations.
#include "model/encoder/torch_fused.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/cuda.h>

#include <array>
#include <limits>
#include <stdexcept>
#include <utility>

#include "model/encoder/torch_device.h"
#include "tests/model/encoder/cuda/kernels_on_cpu.h"

namespace longembed {
namespace {

using cuda::ElementType;
using cuda::Kernel;

constexpr std::pair<ElementType, at::ScalarType> kTypes[] = {
    {ElementType::kFloat32, at::kFloat}, {ElementType::kFloat16, at::kHalf}, {ElementType::kBfloat16, at::kBFloat16}};

TEST(FusedKernelsTest, EqualLibTorch) {
  for (const auto& [element, type] : kTypes) {
    const TorchFused fused([element = element](Kernel kernel, int64_t blocks, void** arguments) {
      return cuda::LaunchOnCpu(element, kernel, blocks, arguments);
    });
    const absl::Status status = fused.Check(at::kCPU, type);
    EXPECT_TRUE(status.ok()) << at::toString(type) << ": " << status;
  }
}

TEST(FusedKernelsTest, AKernelThatIsWrongIsFound) {
  // The number of the argument that holds each kernel's result.
  constexpr std::array<size_t, cuda::kKernelNames.size()> kResult{6, 5, 0, 1, 0, 2};
  for (size_t broken = 0; broken < cuda::kKernelNames.size(); ++broken) {
    const TorchFused fused([&](Kernel kernel, int64_t blocks, void** arguments) {
      const bool launched = cuda::LaunchOnCpu(ElementType::kFloat32, kernel, blocks, arguments);
      if (static_cast<size_t>(kernel) == broken) **static_cast<float**>(arguments[kResult[broken]]) += 0.01f;
      return launched;
    });
    const absl::Status status = fused.Check(at::kCPU, at::kFloat);
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr(cuda::kKernelNames[broken]));
  }
}

TEST(FusedKernelsTest, AKernelThatDoesNotStartThrowsAndIsFoundByTheCheck) {
  const TorchFused fused([](Kernel, int64_t, void**) { return false; });
  const absl::Status status = fused.Check(at::kCPU, at::kFloat);
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("AddLayerNorm"));
  EXPECT_THROW(fused.BiasGelu(at::zeros({2, 3}), at::zeros({3})), std::runtime_error);
}

TEST(FusedKernelsTest, NanStaysVisible) {
  const at::Tensor x = at::zeros({2, 8}, at::kBFloat16), weight = at::ones({8}, at::kBFloat16);
  x[0][3] = std::numeric_limits<float>::quiet_NaN();
  const TorchFused fused([](Kernel kernel, int64_t blocks, void** arguments) {
    return cuda::LaunchOnCpu(ElementType::kBfloat16, kernel, blocks, arguments);
  });
  const at::Tensor norm = fused.AddRmsNorm(x, {}, weight, 1e-5);
  EXPECT_TRUE(norm[0].isnan().all().item<bool>());
  EXPECT_FALSE(norm[1].isnan().any().item<bool>());
}

// The mean of many equal rows is such a row. A running sum over 32,768 rows would be 3e-4 of it away.
TEST(FusedKernelsTest, TheMeanOfManyRowsLosesNoPrecision) {
  const at::Tensor row = at::tensor({0.1f, 0.3f, 1.7f, -0.7f}), spans = at::tensor({0, 32768}, at::kInt).view({1, 2});
  const TorchFused fused([](Kernel kernel, int64_t blocks, void** arguments) {
    return cuda::LaunchOnCpu(ElementType::kFloat32, kernel, blocks, arguments);
  });
  const at::Tensor mean = fused.SpanMean(row.repeat({32768, 1}), spans);
  EXPECT_LT((mean[0] / row - 1).abs().max().item<float>(), 1e-5f);
}

TEST(FusedKernelsTest, CompileForAGpu) {
  for (const auto& [element, type] : kTypes) {
    const absl::StatusOr<std::string> code = cuda::CompileFusedKernels(element, "sm_80");
    if (absl::IsUnavailable(code.status())) GTEST_SKIP() << code.status().message();
    ASSERT_TRUE(code.ok()) << code.status();
    for (const char* const name : cuda::kKernelNames) EXPECT_THAT(*code, ::testing::HasSubstr(name));
  }
}

// The current device of the thread stays the first one, as in a server whose models run on several GPUs.
TEST(FusedKernelsTest, EqualLibTorchOnEveryGpu) {
  const auto first = FindDevice("cuda");
  if (!first.ok()) GTEST_SKIP() << "no GPU: " << first.status().message();
  at::zeros({1}, at::TensorOptions(*first));  // Makes the device's context current.
  for (int i = 0; i < static_cast<int>(torch::cuda::device_count()); ++i) {
    const c10::Device device(c10::kCUDA, static_cast<c10::DeviceIndex>(i));
    at::zeros({1}, at::TensorOptions(device));
    for (const auto& [element, type] : kTypes) {
      const auto fused = TorchFused::Make(device, type);
      EXPECT_TRUE(fused.ok()) << device << " " << at::toString(type) << ": " << fused.status();
    }
  }
}

}  // namespace
}  // namespace longembed
