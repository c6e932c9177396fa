#include <ATen/Parallel.h>
#include <torch/cuda.h>
#include <torch/script.h>
#include <torch/version.h>

#include <cstdlib>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "model/encoder/cpu/cpu_encoder.h"
#include "model/encoder/cpu/cpu_features.h"
#include "model/encoder/load_encoder.h"
#include "model/encoder/sparse_encoder.h"
#include "model/encoder/torch_device.h"
#include "model/encoder/torch_encoder.h"
#include "model/encoder/torch_lowering.h"
#include "model/errors/errors.h"

namespace longembed {
namespace {

constexpr char kContractFile[] = "longembed.json";
// What the exporter writes beside the graph; the signature fixes names, order, dtypes and shapes of forward's
// arguments.
constexpr char kApeSignature[] = "\"ape-v1\"";
constexpr char kRopeSignature[] = "\"rope-v1\"";

// The graph in another precision, for LibTorch's own kernels. Tables and sums that must stay float32 are the graph's
// own concern.
absl::Status Convert(torch::jit::Module& module, c10::Device device, Precision precision) {
  switch (precision) {
    case Precision::kFloat32:
      return absl::OkStatus();
    case Precision::kBfloat16:
      module.to(at::kBFloat16);
      return absl::OkStatus();
    case Precision::kFloat16:
      if (device.is_cpu()) return PrecisionUnavailable(PrecisionName(precision), "fp16 is for CUDA; use bf16 or fp32");
      module.to(at::kHalf);
      return absl::OkStatus();
    case Precision::kInt8:
      return PrecisionUnavailable(PrecisionName(precision),
                                  "LibTorch's own kernels are not used for it; use bf16 or fp32");
  }
  return absl::OkStatus();
}

// Throws what torch throws.
absl::StatusOr<std::unique_ptr<Encoder>> Load(const std::string& path, const ModelManifest& manifest,
                                              c10::Device device, const EncoderOptions& options) {
  torch::jit::ExtraFilesMap contract{{kContractFile, ""}};
  torch::jit::Module module = torch::jit::load(path, device, contract);
  const char* signature = manifest.family == Family::kApe ? kApeSignature : kRopeSignature;
  if (!absl::StrContains(contract[kContractFile], signature)) {
    return ModelDirectoryError(path, absl::StrCat("was not exported for this build (signature ", signature,
                                                  " is missing); export the model again"));
  }
  module.eval();
  if (device.is_cpu() && options.engine == Engine::kAuto) {
    std::string why = cpu::MissingFor(options.precision);
    if (why.empty()) {
      absl::StatusOr<Program> program = LowerToProgram(module);
      if (!program.ok()) {
        why = std::string(program.status().message());
      } else {
        module = torch::jit::Module();  // The program holds the weights now, and lets go of each once it is packed.
        absl::StatusOr<std::unique_ptr<Encoder>> encoder = MakeCpuEncoder(*std::move(program), options.precision);
        if (encoder.ok()) return encoder;
        why = std::string(encoder.status().message());
        module = torch::jit::load(path, device);
        module.eval();
      }
    }
    if (options.precision == Precision::kInt8) return PrecisionUnavailable(PrecisionName(options.precision), why);
    if (options.on_fallback) options.on_fallback(why);
  }
  if (absl::Status status = Convert(module, device, options.precision); !status.ok()) return status;
  // Encoders run on streams of their own, which do not wait for the one that the weights were copied on.
  if (device.is_cuda()) torch::cuda::synchronize(device.index());
  return MakeTorchEncoder(module, device, manifest, options.precision);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Encoder>> LoadEncoder(const std::string& directory, const ModelManifest& manifest,
                                                     const EncoderOptions& options) {
  const absl::StatusOr<c10::Device> device = FindDevice(options.device);
  if (!device.ok()) return device.status();
  const std::string path = absl::StrCat(directory, "/", kEncoderFile);
  absl::StatusOr<std::unique_ptr<Encoder>> encoder;
  try {
    encoder = Load(path, manifest, *device, options);
  } catch (const std::exception& error) {
    return ModelDirectoryError(path, std::string(StatusOfException(error).message()));
  }
  if (!encoder.ok() || manifest.sparse_head == SparseHeadKind::kNone) return encoder;
  absl::StatusOr<std::unique_ptr<SparseHead>> head = LoadSparseHead(directory, manifest, (*encoder)->device());
  if (!head.ok()) return head.status();
  return WithSparseHead(*std::move(encoder), *std::move(head));
}

void SetTorchThreads(int threads) { at::set_num_threads(threads); }

void BoundTorchCaches() { setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128", /*overwrite=*/0); }

std::string TorchVersion() { return TORCH_VERSION; }

}  // namespace longembed
