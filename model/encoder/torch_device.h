// Placement: which device a name means, and whether it is there. Includes torch; for model/encoder's own use.
#ifndef LONGEMBED_MODEL_ENCODER_TORCH_DEVICE_H_
#define LONGEMBED_MODEL_ENCODER_TORCH_DEVICE_H_

#include <c10/core/Device.h>

#include <string>

#include "absl/status/statusor.h"

namespace longembed {

// "cpu", "cuda" or "cuda:N". For CUDA it loads LibTorch's CUDA library into the process, so that one binary serves both
// kinds of machine. Errors: INVALID_ARGUMENT (no such name), FAILED_PRECONDITION (no CUDA library, no driver, no such
// device).
absl::StatusOr<c10::Device> FindDevice(const std::string& name);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_TORCH_DEVICE_H_
