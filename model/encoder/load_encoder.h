// From a model directory to an encoder. LibTorch stays behind this header.
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
  kAuto,         // Our kernels where they can run the model, else TorchScript.
  kTorchScript,  // LibTorch runs the graph as it was exported.
};

struct EncoderOptions {
  std::string device = "cpu";  // "cpu", "cuda" (the first one) or "cuda:N".
  Precision precision = Precision::kFloat32;
  Engine engine = Engine::kAuto;
  // Of our own kernels, the instruction set (cpu/kernels.h); empty: the fastest that this processor has.
  std::string kernels;
  // Cores that load it.
  int threads = 1;
  // Weights stay in the file, and each layer's are read for every batch: slow, and for a few batches of a model that
  // does not fit into memory.
  bool streamed = false;
  // Called with the fraction of the weights that is read, 0 to 1; on any thread, one at a time. Streamed: for each
  // batch.
  std::function<void(double)> on_progress;
  // Called with the reason if the model will not run as configured: with LibTorch where our kernels cannot run it, or
  // with products in float32 where the processor has none of bfloat16.
  std::function<void(const std::string& what, const std::string& why)> on_fallback;
};

// Loads `directory`/encoder.pt, and the sparse head where the manifest names one, and checks format and signature
// against the manifest. Errors: FAILED_PRECONDITION with an actionable sentence (no such file, another format
// version, no such device, a precision that this machine cannot compute in); INTERNAL where one of the processor's
// cores computes wrongly.
absl::StatusOr<std::unique_ptr<Encoder>> LoadEncoder(const std::string& directory, const ModelManifest& manifest,
                                                     const EncoderOptions& options);

// Checks what can be known of the options without a model: that this machine has the device, and that the device
// computes in the precision. Errors: FAILED_PRECONDITION.
absl::Status CheckEncoderOptions(const EncoderOptions& options);

// Names of the sets of our own kernels that this processor has (cpu/kernels.h), fastest first.
std::vector<std::string> AvailableCpuKernels();

// Sets the number of cores that LibTorch uses for one operation on the calling thread: its OpenMP would otherwise start
// as many threads as there are cores for each thread that encodes. Our kernels have no use for it.
void SetTorchThreads(int threads);

// Bounds the cache of LibTorch's oneDNN, which has an entry for each number of rows: by default, or by the environment
// (ONEDNN_PRIMITIVE_CACHE_CAPACITY), a thousand, which looks like a leak for the first hours. Costs a twentieth of its
// speed on texts of all lengths. REQUIRES: no thread has been started.
void BoundTorchCaches();

// "2.11.0", for build information.
std::string TorchVersion();

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_LOAD_ENCODER_H_
