// The encoder that runs a TorchScript graph with LibTorch, on the CPU or a CUDA device. Torch stays behind this header.
#ifndef LONGEMBED_MODEL_ENCODER_TORCH_ENCODER_H_
#define LONGEMBED_MODEL_ENCODER_TORCH_ENCODER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "model/encoder/encoder.h"
#include "model/manifest/manifest.h"

namespace longembed {

struct TorchEncoderOptions {
  std::string device = "cpu";  // "cpu", "cuda" (the first one) or "cuda:N".
};

// Loads `directory`/encoder.pt and checks its format and signature against the manifest.
// Errors: FAILED_PRECONDITION with a sentence that says what to do (no such file, another format version, no such
// device).
absl::StatusOr<std::unique_ptr<Encoder>> LoadTorchEncoder(const std::string& directory, const ModelManifest& manifest,
                                                          const TorchEncoderOptions& options);

// How many cores one Encode call of the calling thread uses. Per thread; call it on every thread that encodes, before
// its first call: LibTorch's OpenMP would otherwise start as many threads as there are cores for each of them.
void SetIntraOpThreads(int threads);

// "2.11.0", for build information.
std::string TorchVersion();

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_TORCH_ENCODER_H_
