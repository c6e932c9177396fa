#include "model/encoder/torch_device.h"

#include <dlfcn.h>
#include <torch/cuda.h>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "model/errors/errors.h"

namespace longembed {
namespace {

absl::Status BadName(const std::string& name) {
  return MakeError(absl::StatusCode::kInvalidArgument, "device", "UNKNOWN_DEVICE",
                   absl::StrCat("is \"", name, "\"; it must be cpu, cuda or cuda:N"));
}

absl::Status NoCuda(const std::string& name, std::string_view why) {
  return MakeError(absl::StatusCode::kFailedPrecondition, "device", "DEVICE_UNAVAILABLE",
                   absl::StrCat("is ", name, ", but ", std::string(why), ". Set it to cpu to run without a GPU"));
}

}  // namespace

absl::StatusOr<c10::Device> FindDevice(const std::string& name) {
  if (name == "cpu") return c10::Device(c10::kCPU);
  absl::string_view rest = name;
  if (!absl::ConsumePrefix(&rest, "cuda")) return BadName(name);
  int index = 0;
  if (!rest.empty() && (!absl::ConsumePrefix(&rest, ":") || !absl::c_all_of(rest, absl::ascii_isdigit) ||
                        !absl::SimpleAtoi(rest, &index) || index > 127)) {
    return BadName(name);
  }
  // Never closed, because the library registers the CUDA kernels with LibTorch.
  static const void* const cuda_library = dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL);
  if (cuda_library == nullptr) return NoCuda(name, "LibTorch's libtorch_cuda.so cannot be loaded");
  if (!torch::cuda::is_available()) return NoCuda(name, "no CUDA driver or device answers");
  const auto count = static_cast<int>(torch::cuda::device_count());
  if (index >= count) return NoCuda(name, absl::StrCat("this machine has ", count, " CUDA device(s)"));
  return c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(index));
}

}  // namespace longembed
