#include "model/encoder/torch_encoder.h"

#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <map>
#include <new>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "model/encoder/torch_attention.h"
#include "model/encoder/torch_layer.h"
#include "model/errors/errors.h"

namespace longembed {
namespace {

// A tensor over memory of ours, which must outlive it.
template <typename T>
at::Tensor View(const std::vector<T>& values, at::ScalarType type) {
  return torch::from_blob(const_cast<T*>(values.data()), {static_cast<int64_t>(values.size())}, type);
}

// The device's own stream of the calling thread, so that batches of several workers overlap on it. Goes by LibTorch's
// device-independent interface: this file is compiled without CUDA's headers.
c10::Stream StreamOfThread(c10::Device device) {
  thread_local std::map<c10::DeviceIndex, c10::Stream> streams;
  const auto found = streams.find(device.index());
  if (found != streams.end()) return found->second;
  const c10::impl::VirtualGuardImpl guard(device.type());
  return streams.emplace(device.index(), guard.getStreamFromGlobalPool(device)).first->second;
}

class TorchEncoder final : public Encoder {
 public:
  TorchEncoder(const torch::jit::Module& module, c10::Device device, const ModelManifest& manifest, Precision precision)
      : embeddings_(module.attr("embeddings").toModule()),
        pooling_(module.attr("pooling").toModule()),
        device_(device),
        precision_(precision),
        family_(manifest.family),
        vector_size_(manifest.vector_size) {
    for (const torch::jit::Module& layer : module.attr("layers").toModule().children()) {
      layers_.emplace_back(layer);
    }
    const at::ScalarType type = precision == Precision::kFloat16 ? at::kHalf : at::kBFloat16;
    flash_ = precision != Precision::kFloat32 && RunsFlashAttention(device, type);
  }

  absl::StatusOr<VectorBlock> Encode(const PackedBatch& batch, Team::Leader&,
                                     absl::FunctionRef<bool()> nobody_waits) override {
    try {
      const c10::InferenceMode inference;
      if (device_.is_cpu()) return Run(batch, nobody_waits);
      const c10::StreamGuard stream(StreamOfThread(device_));
      return Run(batch, nobody_waits);
    } catch (const std::exception& error) {
      return StatusOfException(error);
    }
  }

  int hidden_size() const override { return vector_size_; }
  std::string device() const override { return device_.str(); }
  Precision precision() const override { return precision_; }
  std::string engine() const override { return "torchscript"; }

 private:
  // The same as the graph's own forward(), in parts, so that a batch nobody waits for ends between layers, and so that
  // on a GPU attention is one kernel a layer.
  absl::StatusOr<VectorBlock> Run(const PackedBatch& batch, absl::FunctionRef<bool()> nobody_waits) {
    if (batch.spans.empty()) return VectorBlock{.rows = 0, .width = vector_size_};
    const at::Tensor offsets = View(batch.sequence_offsets, at::kInt);
    const at::Tensor query_scale = View(batch.query_scale, at::kFloat);
    const at::Tensor neighbour_window = View(batch.neighbour_window, at::kInt);
    static_assert(sizeof(Range) == 2 * sizeof(int32_t));
    const at::Tensor spans = torch::from_blob(const_cast<Range*>(batch.spans.data()),
                                              {static_cast<int64_t>(batch.spans.size()), 2}, at::kInt);

    TorchAttentionBatch attention(batch);
    std::vector<c10::IValue> arguments{Embed(batch), query_scale, neighbour_window, offsets};
    if (family_ == Family::kRope) {
      attention.rotary =
          ToDevice(View(batch.rotary, at::kFloat)
                       .view({batch.rotary_tables, 2, static_cast<int64_t>(batch.tokens.size()), batch.rotary_width}));
      arguments.insert(arguments.begin() + 1, attention.rotary);
    }
    const bool one_kernel = !device_.is_cpu();
    if (one_kernel) {
      attention.sequence_offsets = ToDevice(offsets);
      attention.query_scale = QueryScaleRows(batch, device_);
      attention.flash = flash_;
    }
    for (TorchLayer& layer : layers_) {
      if (nobody_waits()) return EncoderCancelled();
      at::Tensor hidden = layer.Run(arguments, one_kernel ? &attention : nullptr);
      arguments[0] = std::move(hidden);
    }
    return ToBlock(pooling_.forward({arguments[0], spans}).toTensor());
  }

  at::Tensor Embed(const PackedBatch& batch) {
    const at::Tensor tokens = ToDevice(View(batch.tokens, at::kInt));
    if (family_ == Family::kRope) return embeddings_.forward({tokens}).toTensor();
    return embeddings_.forward({tokens, ToDevice(View(batch.positions, at::kFloat))}).toTensor();
  }

  // Through pinned memory, from which a GPU copies while the host goes on. The host allocator keeps a piece until the
  // stream has read it.
  at::Tensor ToDevice(const at::Tensor& tensor) const {
    if (device_.is_cpu()) return tensor;
    return tensor.pin_memory().to(device_, tensor.scalar_type(), /*non_blocking=*/true);
  }

  VectorBlock ToBlock(const at::Tensor& vectors) const {
    const at::Tensor rows = vectors.to(at::kCPU, at::kFloat).contiguous();
    const float* data = rows.data_ptr<float>();
    return {.rows = static_cast<int>(rows.size(0)),
            .width = static_cast<int>(rows.size(1)),
            .values = std::vector<float>(data, data + rows.numel())};
  }

  torch::jit::Module embeddings_;
  std::vector<TorchLayer> layers_;
  torch::jit::Module pooling_;
  const c10::Device device_;
  const Precision precision_;
  const Family family_;
  const int vector_size_;
  bool flash_ = false;
};

}  // namespace

absl::Status StatusOfException(const std::exception& error) {
  const absl::string_view text = error.what();
  // The interpreter puts a traceback before the words that matter: what() ends with "RuntimeError: ...".
  const size_t cause = text.rfind("RuntimeError: ");
  const absl::string_view words = cause == absl::string_view::npos ? text : text.substr(cause);
  const std::string first_line(words.substr(0, words.find('\n')));
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
