// The encoder that runs a model directory's TorchScript graph as it is, with LibTorch, on the CPU or a CUDA device.
// Includes torch; for model/encoder's own use.
#ifndef LONGEMBED_MODEL_ENCODER_TORCH_ENCODER_H_
#define LONGEMBED_MODEL_ENCODER_TORCH_ENCODER_H_

#include <torch/script.h>

#include <exception>
#include <memory>

#include "absl/status/status.h"
#include "model/encoder/encoder.h"
#include "model/manifest/manifest.h"

namespace longembed {

// `module` is on `device` and holds its weights in `precision`. Throws what torch throws.
std::unique_ptr<Encoder> MakeTorchEncoder(const torch::jit::Module& module, c10::Device device,
                                          const ModelManifest& manifest, Precision precision);

// RESOURCE_EXHAUSTED when memory ran out, else INTERNAL. The interpreter wraps errors as std::runtime_error, so that
// running out of memory is known by its words only.
absl::Status StatusOfException(const std::exception& error);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_TORCH_ENCODER_H_
