#include <ATen/Parallel.h>
#include <torch/script.h>
#include <torch/version.h>

#include <cstdint>
#include <cstdlib>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "model/encoder/cpu/cpu_encoder.h"
#include "model/encoder/cpu/kernels.h"
#include "model/encoder/load_encoder.h"
#include "model/encoder/sparse_encoder.h"
#include "model/encoder/torch_archive.h"
#include "model/encoder/torch_device.h"
#include "model/encoder/torch_encoder.h"
#include "model/encoder/torch_graph.h"
#include "model/encoder/torch_lowering.h"
#include "model/errors/errors.h"
#include "system/return_if_error.h"

namespace longembed {
namespace {

// Signatures in the contract that the exporter writes next to the graph. They define names, order, dtypes and shapes of
// the arguments of forward().
constexpr char kApeSignature[] = "\"ape-v1\"";
constexpr char kRopeSignature[] = "\"rope-v1\"";

// A size that both the graph and the manifest have.
struct Size {
  const char* key;  // The manifest's key.
  int64_t of_graph;
  int64_t of_manifest;
};

// Throws torch's exceptions.
std::vector<Size> SizesOf(const torch::jit::Module& graph, const ModelManifest& manifest) {
  const torch::jit::Module embeddings = graph.attr("embeddings").toModule();
  const torch::jit::Module pooling = graph.attr("pooling").toModule();
  const at::Tensor word = embeddings.attr("word").toTensor();
  const size_t layers = graph.attr("layers").toModule().children().size();
  int64_t vector_size = word.size(1);
  if (ClassOf(pooling) == "DensePooling") {
    for (const torch::jit::Module& head : pooling.attr("heads").toModule().children()) {
      vector_size = head.attr("linear").toModule().attr("weight").toTensor().size(0);
    }
  }
  std::vector<Size> sizes{{"vocabulary_size", word.size(0), manifest.vocabulary_size},
                          {"hidden_size", word.size(1), manifest.hidden_size},
                          {"layers", static_cast<int64_t>(layers), manifest.layers},
                          {"vector_size", vector_size, manifest.vector_size}};
  if (manifest.family == Family::kApe) {
    sizes.push_back({"position_rows", embeddings.attr("position").toTensor().size(0), manifest.position_rows});
  }
  return sizes;
}

// Compares the graph with a manifest that was perhaps edited. Beyond the end of a vector there is other memory, and
// positions beyond the table would all get its last row. Throws torch's exceptions.
absl::Status CheckSizes(const std::string& path, const torch::jit::Module& graph, const ModelManifest& manifest) {
  for (const Size& size : SizesOf(graph, manifest)) {
    if (size.of_graph == size.of_manifest) continue;
    return ModelDirectoryError(path, absl::StrCat("has ", size.key, " ", size.of_graph, ", the manifest says ",
                                                  size.of_manifest, "; export the model again"));
  }
  return absl::OkStatus();
}

// Returns the dtype of the weights for LibTorch's kernels. The graph itself keeps in float32 the tables and sums that
// need it.
absl::StatusOr<at::ScalarType> TypeFor(c10::Device device, Precision precision) {
  switch (precision) {
    case Precision::kFloat32:
      return at::kFloat;
    case Precision::kBfloat16:
      return at::kBFloat16;
    case Precision::kFloat16:
      if (device.is_cpu()) return PrecisionUnavailable(PrecisionName(precision), "fp16 is for CUDA; use bf16 or fp32");
      return at::kHalf;
    case Precision::kInt8:
      break;
  }
  return PrecisionUnavailable(PrecisionName(precision), "only this project's CPU kernels support it; use bf16 or fp32");
}

// Loads an encoder that uses this project's kernels. Errors: UNIMPLEMENTED or FAILED_PRECONDITION with the reason if
// they cannot run the model.
absl::StatusOr<std::unique_ptr<Encoder>> LoadNative(const std::string& path, const EncoderOptions& options) {
  const absl::StatusOr<const cpu::Kernels*> kernels = cpu::FindKernels(options.kernels);
  if (!kernels.ok()) return kernels.status();
  RETURN_IF_ERROR(cpu::CheckKernelsOnEveryCore(**kernels, options.threads));
  absl::StatusOr<MappedModule> loaded = LoadMapped(path);
  if (!loaded.ok()) return loaded.status();
  absl::StatusOr<Program> program = LowerToProgram(loaded->module, loaded->file);
  if (!program.ok()) return program.status();
  *loaded = {};  // The program keeps the parts of the file that it needs.
  if (options.precision == Precision::kBfloat16 && !(*kernels)->bfloat16_rows && options.on_fallback) {
    options.on_fallback("weights are kept in bf16, and products computed in fp32",
                        absl::StrCat("the kernels ", (*kernels)->name, " have no products of bfloat16"));
  }
  return MakeCpuEncoder(*std::move(program), options.precision, **kernels,
                        {.threads = options.threads, .streamed = options.streamed, .on_progress = options.on_progress});
}

// Checks that this processor supports the named kernels. An empty name is accepted.
absl::Status CheckKernelsName(const std::string& name) {
  return name.empty() ? absl::OkStatus() : cpu::FindKernels(name).status();
}

// Loads the encoder without a sparse head. Throws torch's exceptions.
absl::StatusOr<std::unique_ptr<Encoder>> Load(const std::string& path, const ModelManifest& manifest,
                                              c10::Device device, const EncoderOptions& options) {
  absl::StatusOr<MappedModule> loaded = LoadMapped(path);
  if (!loaded.ok()) return loaded.status();
  const char* signature = manifest.family == Family::kApe ? kApeSignature : kRopeSignature;
  if (!absl::StrContains(loaded->contract, signature)) {
    return ModelDirectoryError(path, absl::StrCat("was not exported for this build (signature ", signature,
                                                  " is missing); export the model again"));
  }
  RETURN_IF_ERROR(CheckSizes(path, loaded->module, manifest));
  if (device.is_cpu() && options.engine == Engine::kAuto) {
    absl::StatusOr<std::unique_ptr<Encoder>> encoder = LoadNative(path, options);
    if (absl::IsDataLoss(encoder.status())) return ModelDirectoryError(path, std::string(encoder.status().message()));
    if (encoder.ok() || absl::IsInternal(encoder.status())) return encoder;
    const std::string why(encoder.status().message());
    if (options.precision == Precision::kInt8) return PrecisionUnavailable(PrecisionName(options.precision), why);
    if (options.on_fallback) options.on_fallback("model runs with LibTorch, slower than with our kernels", why);
  }
  const absl::StatusOr<at::ScalarType> type = TypeFor(device, options.precision);
  if (!type.ok()) return type.status();
  return MakeTorchEncoder(*loaded,
                          {.device = device,
                           .precision = options.precision,
                           .type = *type,
                           .streamed = options.streamed,
                           .on_progress = options.on_progress},
                          manifest);
}

}  // namespace

absl::Status CheckEncoderOptions(const EncoderOptions& options) {
  const absl::StatusOr<c10::Device> device = FindDevice(options.device);
  if (!device.ok()) return device.status();
  RETURN_IF_ERROR(CheckKernelsName(options.kernels));
  if (options.precision == Precision::kInt8 && device->is_cpu() && options.engine == Engine::kAuto) {
    const absl::Status found = cpu::FindKernels(options.kernels).status();
    return found.ok() ? found : PrecisionUnavailable(PrecisionName(options.precision), std::string(found.message()));
  }
  return TypeFor(*device, options.precision).status();
}

absl::StatusOr<std::unique_ptr<Encoder>> LoadEncoder(const std::string& directory, const ModelManifest& manifest,
                                                     const EncoderOptions& options) {
  const absl::StatusOr<c10::Device> device = FindDevice(options.device);
  if (!device.ok()) return device.status();
  RETURN_IF_ERROR(CheckKernelsName(options.kernels));
  const std::string path = absl::StrCat(directory, "/", kEncoderFile);
  absl::StatusOr<std::unique_ptr<Encoder>> encoder;
  try {
    encoder = Load(path, manifest, *device, options);
  } catch (const std::system_error& error) {
    return absl::FailedPreconditionError(
        absl::StrCat("the system refuses a thread to load ", path, " with (", error.code().message(),
                     "); raise the limits of processes (ulimit -u, pids.max) and of memory"));
  } catch (const std::exception& error) {
    return ModelDirectoryError(path, std::string(StatusOfException(error).message()));
  }
  if (!encoder.ok() || manifest.sparse_head == SparseHeadKind::kNone) return encoder;
  absl::StatusOr<std::unique_ptr<SparseHead>> head = LoadSparseHead(directory, manifest, (*encoder)->device());
  if (!head.ok()) return head.status();
  return WithSparseHead(*std::move(encoder), *std::move(head));
}

std::vector<std::string> AvailableCpuKernels() {
  std::vector<std::string> names;
  for (const cpu::Kernels* kernels : cpu::AvailableKernels()) names.emplace_back(kernels->name);
  return names;
}

void SetTorchThreads(int threads) { at::set_num_threads(threads); }

void BoundTorchCaches() { setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128", /*overwrite=*/0); }

std::string TorchVersion() { return TORCH_VERSION; }

}  // namespace longembed
