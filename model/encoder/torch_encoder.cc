#include "model/encoder/torch_encoder.h"

#include <ATen/Parallel.h>
#include <torch/script.h>
#include <torch/version.h>

#include <exception>
#include <new>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "model/encoder/torch_device.h"
#include "model/errors/errors.h"

namespace longembed {
namespace {

constexpr char kContractFile[] = "longembed.json";
// What the exporter writes beside the graph; the signature fixes names, order, dtypes and shapes of forward's
// arguments.
constexpr char kApeSignature[] = "\"ape-v1\"";
constexpr char kRopeSignature[] = "\"rope-v1\"";

// Torch throws; this is the one place that turns what it throws into a status. The interpreter wraps errors as
// std::runtime_error, so that running out of memory is known by its words only.
absl::Status FromException(const std::exception& error) {
  const absl::string_view text = error.what();
  const absl::string_view first_line = text.substr(0, text.find('\n'));
  const bool out_of_memory = dynamic_cast<const std::bad_alloc*>(&error) != nullptr ||
                             absl::StrContains(text, "not enough memory") || absl::StrContains(text, "out of memory") ||
                             absl::StrContains(text, "bad_alloc");
  if (out_of_memory) {
    return MakeError(absl::StatusCode::kResourceExhausted, "", "OUT_OF_MEMORY", absl::StrCat("encoder: ", first_line));
  }
  return MakeError(absl::StatusCode::kInternal, "", "ENCODER_FAILED", absl::StrCat("encoder: ", first_line));
}

// A tensor over memory of ours, which must outlive it.
template <typename T>
at::Tensor View(const std::vector<T>& values, at::ScalarType type) {
  return torch::from_blob(const_cast<T*>(values.data()), {static_cast<int64_t>(values.size())}, type);
}

class TorchEncoder final : public Encoder {
 public:
  TorchEncoder(torch::jit::Module module, c10::Device device, const ModelManifest& manifest)
      : embeddings_(module.attr("embeddings").toModule()),
        pooling_(module.attr("pooling").toModule()),
        device_(device),
        family_(manifest.family),
        hidden_size_(manifest.hidden_size) {
    for (const torch::jit::Module& layer : module.attr("layers").toModule().children()) layers_.push_back(layer);
  }

  absl::StatusOr<VectorBlock> Encode(const PackedBatch& batch, absl::FunctionRef<bool()> nobody_waits) override {
    try {
      return Run(batch, nobody_waits);
    } catch (const std::exception& error) {
      return FromException(error);
    }
  }

  int hidden_size() const override { return hidden_size_; }
  std::string device() const override { return device_.str(); }

 private:
  // The same as the graph's own forward(), in parts, so that a batch nobody waits for ends between layers.
  absl::StatusOr<VectorBlock> Run(const PackedBatch& batch, absl::FunctionRef<bool()> nobody_waits) {
    const c10::InferenceMode inference;
    const at::Tensor offsets = View(batch.sequence_offsets, at::kInt);
    const at::Tensor query_scale = View(batch.query_scale, at::kFloat);
    const at::Tensor neighbour_window = View(batch.neighbour_window, at::kInt);
    static_assert(sizeof(Range) == 2 * sizeof(int32_t));
    const at::Tensor spans = torch::from_blob(const_cast<Range*>(batch.spans.data()),
                                              {static_cast<int64_t>(batch.spans.size()), 2}, at::kInt);

    at::Tensor hidden = Embed(batch);
    std::vector<c10::IValue> arguments{at::Tensor(), query_scale, neighbour_window, offsets};
    if (family_ == Family::kRope) arguments.insert(arguments.begin() + 1, RotaryOf(batch));
    for (torch::jit::Module& layer : layers_) {
      if (nobody_waits()) return EncoderCancelled();
      arguments[0] = std::exchange(hidden, {});
      hidden = layer.forward(arguments).toTensor();
    }
    return ToBlock(pooling_.forward({std::move(hidden), spans}).toTensor());
  }

  at::Tensor Embed(const PackedBatch& batch) {
    const at::Tensor tokens = View(batch.tokens, at::kInt).to(device_);
    if (family_ == Family::kRope) return embeddings_.forward({tokens}).toTensor();
    return embeddings_.forward({tokens, View(batch.positions, at::kFloat).to(device_)}).toTensor();
  }

  at::Tensor RotaryOf(const PackedBatch& batch) const {
    const auto tokens = static_cast<int64_t>(batch.tokens.size());
    return View(batch.rotary, at::kFloat).view({batch.rotary_tables, 2, tokens, batch.rotary_width}).to(device_);
  }

  VectorBlock ToBlock(const at::Tensor& vectors) const {
    const at::Tensor rows = vectors.to(at::kCPU, at::kFloat).contiguous();
    const float* data = rows.data_ptr<float>();
    return {.rows = static_cast<int>(rows.size(0)),
            .width = static_cast<int>(rows.size(1)),
            .values = std::vector<float>(data, data + rows.numel())};
  }

  torch::jit::Module embeddings_;
  std::vector<torch::jit::Module> layers_;
  torch::jit::Module pooling_;
  const c10::Device device_;
  const Family family_;
  const int hidden_size_;
};

// Throws what torch throws.
absl::StatusOr<std::unique_ptr<Encoder>> Load(const std::string& path, const ModelManifest& manifest,
                                              c10::Device device) {
  torch::jit::ExtraFilesMap contract{{kContractFile, ""}};
  torch::jit::Module module = torch::jit::load(path, device, contract);
  const char* signature = manifest.family == Family::kApe ? kApeSignature : kRopeSignature;
  if (!absl::StrContains(contract[kContractFile], signature)) {
    return ModelDirectoryError(path, absl::StrCat("was not exported for this build (signature ", signature,
                                                  " is missing); export the model again"));
  }
  module.eval();
  auto encoder = std::make_unique<TorchEncoder>(std::move(module), device, manifest);
  return encoder;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Encoder>> LoadTorchEncoder(const std::string& directory, const ModelManifest& manifest,
                                                          const TorchEncoderOptions& options) {
  const absl::StatusOr<c10::Device> device = FindDevice(options.device);
  if (!device.ok()) return device.status();
  const std::string path = absl::StrCat(directory, "/", kEncoderFile);
  try {
    return Load(path, manifest, *device);
  } catch (const std::exception& error) {
    return ModelDirectoryError(path, std::string(FromException(error).message()));
  }
}

void SetIntraOpThreads(int threads) { at::set_num_threads(threads); }

std::string TorchVersion() { return TORCH_VERSION; }

}  // namespace longembed
