// The encoder that runs a model directory's TorchScript graph with LibTorch, on the CPU or a CUDA device. Includes
// torch, so for use within model/encoder only.
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
  at::ScalarType type = at::kFloat;         // Element type for `precision`.
  bool streamed = false;                    // See EncoderOptions.
  std::function<void(double)> on_progress;  // See EncoderOptions.
};

// Makes an encoder and copies the weights to the device, dropping the file's pages on the way. If streamed, each
// layer's weights are copied for every batch instead. Throws torch's exceptions.
std::unique_ptr<Encoder> MakeTorchEncoder(const MappedModule& loaded, const TorchOptions& options,
                                          const ModelManifest& manifest);

// Converts an exception to RESOURCE_EXHAUSTED if memory ran out, else to INTERNAL. TorchScript's interpreter rethrows
// errors as std::runtime_error, so running out of memory is recognized by the message.
absl::Status StatusOfException(const std::exception& error);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_TORCH_ENCODER_H_
