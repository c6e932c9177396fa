// The encoder that runs a model directory's TorchScript graph as it is, with LibTorch, on the CPU or a CUDA device.
// Includes torch; for model/encoder's own use.
#ifndef LONGEMBED_MODEL_ENCODER_TORCH_ENCODER_H_
#define LONGEMBED_MODEL_ENCODER_TORCH_ENCODER_H_

#include <torch/script.h>

#include <exception>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "model/encoder/encoder.h"
#include "model/encoder/torch_archive.h"
#include "model/manifest/manifest.h"

namespace longembed {

struct TorchOptions {
  c10::Device device = at::kCPU;
  Precision precision = Precision::kFloat32;
  at::ScalarType type = at::kFloat;         // Of `precision`.
  bool streamed = false;                    // As in EncoderOptions.
  std::function<void(double)> on_progress;  // As there.
};

// Copies the weights to the device, dropping the file's pages as it goes; streamed, each layer's for every batch.
// Throws what torch throws.
std::unique_ptr<Encoder> MakeTorchEncoder(const MappedModule& loaded, const TorchOptions& options,
                                          const ModelManifest& manifest);

// RESOURCE_EXHAUSTED when memory ran out, else INTERNAL. The interpreter wraps errors as std::runtime_error, so that
// running out of memory is known by its words only.
absl::Status StatusOfException(const std::exception& error);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_TORCH_ENCODER_H_
