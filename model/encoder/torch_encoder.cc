#include "model/encoder/torch_encoder.h"

#include <new>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "model/errors/errors.h"

namespace longembed {
namespace {

// A tensor over memory of ours, which must outlive it.
template <typename T>
at::Tensor View(const std::vector<T>& values, at::ScalarType type) {
  return torch::from_blob(const_cast<T*>(values.data()), {static_cast<int64_t>(values.size())}, type);
}

class TorchEncoder final : public Encoder {
 public:
  TorchEncoder(const torch::jit::Module& module, c10::Device device, const ModelManifest& manifest, Precision precision)
      : embeddings_(module.attr("embeddings").toModule()),
        pooling_(module.attr("pooling").toModule()),
        device_(device),
        precision_(precision),
        family_(manifest.family),
        hidden_size_(manifest.hidden_size) {
    for (const torch::jit::Module& layer : module.attr("layers").toModule().children()) layers_.push_back(layer);
  }

  absl::StatusOr<VectorBlock> Encode(const PackedBatch& batch, Team::Leader&,
                                     absl::FunctionRef<bool()> nobody_waits) override {
    try {
      return Run(batch, nobody_waits);
    } catch (const std::exception& error) {
      return StatusOfException(error);
    }
  }

  int hidden_size() const override { return hidden_size_; }
  std::string device() const override { return device_.str(); }
  Precision precision() const override { return precision_; }
  std::string engine() const override { return "torchscript"; }

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
  const Precision precision_;
  const Family family_;
  const int hidden_size_;
};

}  // namespace

absl::Status StatusOfException(const std::exception& error) {
  const absl::string_view text = error.what();
  const std::string first_line(text.substr(0, text.find('\n')));
  const bool out_of_memory = dynamic_cast<const std::bad_alloc*>(&error) != nullptr ||
                             absl::StrContains(text, "not enough memory") || absl::StrContains(text, "out of memory") ||
                             absl::StrContains(text, "bad_alloc");
  return out_of_memory ? EncoderOutOfMemory(first_line) : EncoderFailed(first_line);
}

std::unique_ptr<Encoder> MakeTorchEncoder(const torch::jit::Module& module, c10::Device device,
                                          const ModelManifest& manifest, Precision precision) {
  return std::make_unique<TorchEncoder>(module, device, manifest, precision);
}

}  // namespace longembed
