// Loads the encoder of a model directory. Callers of this header do not depend on LibTorch.
#ifndef LONGEMBED_MODEL_ENCODER_LOAD_ENCODER_H_
#define LONGEMBED_MODEL_ENCODER_LOAD_ENCODER_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/encoder/encoder.h"
#include "model/encoder/precision.h"
#include "model/manifest/manifest.h"

namespace longembed {

enum class Engine {
  kAuto,         // This project's kernels if they can run the model, else TorchScript.
  kTorchScript,  // LibTorch runs the exported graph.
};

struct EncoderOptions {
  std::string device = "cpu";  // "cpu", "cuda" (the first GPU) or "cuda:N".
  Precision precision = Precision::kFloat32;
  Engine engine = Engine::kAuto;
  // Instruction set of the CPU kernels (cpu/kernels.h). Default: the fastest of this processor.
  std::string kernels;
  // Number of threads that load the model.
  int threads = 1;
  // Whether weights stay in the file and each layer's weights are read for every batch. This is slow, and meant for a
  // few batches of a model that does not fit into memory.
  bool streamed = false;
  // Called with the fraction of the weights read so far, 0 to 1, from any thread but never concurrently. If streamed,
  // called during every batch.
  std::function<void(double)> on_progress;
  // Called with the reason if the model will not run as configured: with LibTorch because the project's kernels cannot
  // run the model, or with products in float32 because the processor has no bfloat16 products.
  std::function<void(const std::string& what, const std::string& why)> on_fallback;
};

// Loads `directory`/encoder.pt, and the sparse head if the manifest names one. Checks format and signature against the
// manifest. Errors: FAILED_PRECONDITION with an actionable sentence (no such file, another format version, no such
// device, kernels or precision that this machine does not support); INVALID_ARGUMENT for a device name that is not
// valid; INTERNAL if a core of the processor computes wrong results.
absl::StatusOr<std::unique_ptr<Encoder>> LoadEncoder(const std::string& directory, const ModelManifest& manifest,
                                                     const EncoderOptions& options);

// Checks the options as far as possible without a model: that this machine has the device and the kernels, and that the
// device supports the precision. Errors: INVALID_ARGUMENT for a device name that is not valid, FAILED_PRECONDITION.
absl::Status CheckEncoderOptions(const EncoderOptions& options);

// Returns the names of the CPU kernel sets that this processor supports (cpu/kernels.h), fastest first.
std::vector<std::string> AvailableCpuKernels();

// Sets the number of threads that LibTorch uses for one operation on the calling thread. By default, LibTorch's OpenMP
// starts as many threads as there are cores for each thread that encodes. Has no effect on this project's kernels.
void SetTorchThreads(int threads);

// Limits oneDNN's primitive cache in LibTorch to 128 entries, unless ONEDNN_PRIMITIVE_CACHE_CAPACITY is set in the
// environment. The cache has an entry for each number of rows. Its default limit of about a thousand entries lets
// memory grow for hours, which looks like a leak. The lower limit costs a twentieth of LibTorch's speed on texts of
// mixed lengths. Sets the variable, so it must be called before LibTorch computes anything. REQUIRES: no other thread
// accesses the environment.
void BoundTorchCaches();

// Returns the version of LibTorch, such as "2.11.0".
std::string TorchVersion();

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_LOAD_ENCODER_H_
