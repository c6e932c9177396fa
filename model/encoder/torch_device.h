// Finds the device with a name. Includes torch, so for use within model/encoder only.
#ifndef LONGEMBED_MODEL_ENCODER_TORCH_DEVICE_H_
#define LONGEMBED_MODEL_ENCODER_TORCH_DEVICE_H_

#include <c10/core/Device.h>

#include <string>

#include "absl/status/statusor.h"

namespace longembed {

// Returns the device "cpu", "cuda" or "cuda:N". For CUDA, loads LibTorch's CUDA library into the process, so that one
// binary runs on machines with and without a GPU. Errors: INVALID_ARGUMENT (no such name), FAILED_PRECONDITION (no CUDA
// library, no driver, no such device).
absl::StatusOr<c10::Device> FindDevice(const std::string& name);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_TORCH_DEVICE_H_
