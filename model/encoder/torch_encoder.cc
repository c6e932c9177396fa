#include "model/encoder/torch_encoder.h"

#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/cuda.h>

#include <algorithm>
#include <map>
#include <new>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "model/encoder/torch_attention.h"
#include "model/encoder/torch_explicit_attention.h"
#include "model/encoder/torch_layer.h"
#include "model/errors/errors.h"

namespace longembed {
namespace {

// Returns a tensor that refers to `values`, which must outlive it.
template <typename T>
at::Tensor View(const std::vector<T>& values, at::ScalarType type) {
  return torch::from_blob(const_cast<T*>(values.data()), {static_cast<int64_t>(values.size())}, type);
}

// Returns the calling thread's own stream of the device, so that batches of several workers overlap. Uses LibTorch's
// device-independent interface, because this file is compiled without CUDA's headers.
c10::Stream StreamOfThread(c10::Device device) {
  thread_local std::map<c10::DeviceIndex, c10::Stream> streams;
  const auto found = streams.find(device.index());
  if (found != streams.end()) return found->second;
  const c10::impl::VirtualGuardImpl guard(device.type());
  return streams.emplace(device.index(), guard.getStreamFromGlobalPool(device)).first->second;
}

void DropPages(const MappedFile& file, const at::Tensor& weight) {
  file.DropPages(static_cast<const std::byte*>(weight.const_data_ptr()), weight.nbytes());
}

// Replaces every weight of the module, which is a mapped page, by a copy on the device. A weight shared by several
// parts stays shared, because it is one tensor.
void CopyWeights(torch::jit::Module module, const MappedFile& file, const TorchOptions& options) {
  int64_t total = 0, done = 0;
  for (const at::Tensor& weight : module.parameters()) total += weight.numel();
  for (at::Tensor weight : module.parameters()) {
    const at::Tensor stored = weight.detach();
    weight.set_data(stored.to(options.device, options.type, /*non_blocking=*/false, /*copy=*/true));
    if (stored.is_cpu()) DropPages(file, stored);
    done += stored.numel();
    if (options.on_progress) options.on_progress(static_cast<double>(done) / static_cast<double>(total));
  }
  module.to(options.device);  // Moves tables that are not parameters.
}

class TorchEncoder final : public Encoder {
 public:
  TorchEncoder(const MappedModule& loaded, const TorchOptions& options, const ModelManifest& manifest)
      : embeddings_(loaded.module.attr("embeddings").toModule()),
        pooling_(loaded.module.attr("pooling").toModule()),
        options_(options),
        device_(options.device),
        family_(manifest.family),
        vector_size_(manifest.vector_size) {
    const torch::jit::Module layers = loaded.module.attr("layers").toModule();
    if (options.streamed) {
      for (const torch::jit::Module& part : {embeddings_, pooling_}) CopyWeights(part, *loaded.file, options);
      for (const torch::jit::Module& layer : layers.children()) stored_layers_.push_back(layer);
      file_ = loaded.file;
    } else {
      CopyWeights(loaded.module, *loaded.file, options);
      for (const torch::jit::Module& layer : layers.children()) layers_.emplace_back(layer);
    }
    flash_ = options.type != at::kFloat && RunsFlashAttention(options.device, options.type);
    // LibTorch's operations are used if NVRTC is missing or a kernel's results differ from LibTorch's. kernels() shows
    // which are used.
    if (options.device.is_cuda()) fused_ = TorchFused::Make(options.device, options.type).value_or(nullptr);
    // Waits for the copies of the weights, because batches run on other streams.
    if (options.device.is_cuda()) torch::cuda::synchronize(options.device.index());
  }

  absl::StatusOr<VectorBlock> Encode(const PackedBatch& batch, Team::Leader&,
                                     absl::FunctionRef<bool()> is_cancelled) override {
    try {
      const c10::InferenceMode inference;
      if (device_.is_cpu()) return Run(batch, is_cancelled);
      const c10::StreamGuard stream(StreamOfThread(device_));
      return Run(batch, is_cancelled);
    } catch (const std::exception& error) {
      return StatusOfException(error);
    }
  }

  int hidden_size() const override { return vector_size_; }
  std::string device() const override { return device_.str(); }
  Precision precision() const override { return options_.precision; }
  std::string engine() const override { return "torchscript"; }
  std::string kernels() const override { return fused_ == nullptr ? "" : "nvrtc"; }

 private:
  // Computes the graph's forward() layer by layer, so that a batch can be cancelled between layers and attention on a
  // GPU is one kernel per layer.
  absl::StatusOr<VectorBlock> Run(const PackedBatch& batch, absl::FunctionRef<bool()> is_cancelled) {
    if (batch.spans.empty()) return VectorBlock{.rows = 0, .width = vector_size_};
    const at::Tensor offsets = View(batch.sequence_offsets, at::kInt);
    const at::Tensor query_scale = View(batch.query_scale, at::kFloat);
    const at::Tensor neighbor_window = View(batch.neighbor_window, at::kInt);
    static_assert(sizeof(Range) == 2 * sizeof(int32_t));
    const at::Tensor spans = torch::from_blob(const_cast<Range*>(batch.spans.data()),
                                              {static_cast<int64_t>(batch.spans.size()), 2}, at::kInt);

    TorchAttentionBatch attention(batch);
    std::vector<c10::IValue> arguments{Embed(batch), query_scale, neighbor_window, offsets};
    if (family_ == Family::kRope) {
      attention.rotary =
          ToDevice(View(batch.rotary, at::kFloat)
                       .view({batch.rotary_tables, 2, static_cast<int64_t>(batch.tokens.size()), batch.rotary_width}));
      arguments.insert(arguments.begin() + 1, attention.rotary);
    }
    attention.one_call = !device_.is_cpu();
    if (attention.one_call) {
      attention.sequence_offsets = ToDevice(offsets);
      attention.query_scale = QueryScaleRows(batch, device_);
      attention.flash = flash_;
      attention.fused = fused_.get();
    }
    const bool walk = attention.one_call || NeedsExplicitAttention(batch);
    for (size_t i = 0; i < std::max(layers_.size(), stored_layers_.size()); ++i) {
      if (is_cancelled()) return EncoderCancelled();
      if (options_.streamed && options_.on_progress)
        options_.on_progress(static_cast<double>(i) / stored_layers_.size());
      std::optional<TorchLayer> read;
      if (options_.streamed) read.emplace(ReadLayer(i));
      TorchLayer& layer = read.has_value() ? *read : layers_[i];
      at::Tensor hidden = layer.Run(arguments, walk ? &attention : nullptr, static_cast<int>(i));
      arguments[0] = std::move(hidden);
    }
    return ToBlock(Pool(arguments[0].toTensor(), spans));
  }

  at::Tensor Pool(const at::Tensor& hidden, const at::Tensor& spans) {
    if (fused_ != nullptr) {
      std::optional<at::Tensor> pooled = fused_->RunPooling(pooling_, hidden, ToDevice(spans));
      if (pooled.has_value()) return *std::move(pooled);
    }
    return pooling_.forward({hidden, spans}).toTensor();
  }

  // Returns a copy of a layer with its weights on the device.
  TorchLayer ReadLayer(size_t i) const {
    const torch::jit::Module layer = stored_layers_[i].deepcopy();
    for (const at::Tensor& weight : stored_layers_[i].parameters()) DropPages(*file_, weight);
    CopyWeights(layer, *file_, {.device = options_.device, .type = options_.type});
    return TorchLayer(layer);
  }

  at::Tensor Embed(const PackedBatch& batch) {
    const at::Tensor tokens = ToDevice(View(batch.tokens, at::kInt));
    if (family_ == Family::kRope) return embeddings_.forward({tokens}).toTensor();
    return embeddings_.forward({tokens, ToDevice(View(batch.positions, at::kFloat))}).toTensor();
  }

  // Copies a tensor to the device through pinned memory, so that the host continues during the copy. LibTorch's host
  // allocator does not reuse the memory before the stream has read it.
  at::Tensor ToDevice(const at::Tensor& tensor) const {
    if (device_.is_cpu()) return tensor;
    return tensor.pin_memory().to(device_, tensor.scalar_type(), /*non_blocking=*/true);
  }

  // Throws if the vectors have another size than the manifest says, because callers read that many components.
  VectorBlock ToBlock(const at::Tensor& vectors) const {
    TORCH_CHECK(vectors.dim() == 2 && vectors.size(1) == vector_size_, "the graph gives vectors ", vectors.sizes(),
                ", the manifest says vector_size ", vector_size_, "; export the model again");
    const at::Tensor rows = vectors.to(at::kCPU, at::kFloat).contiguous();
    const float* data = rows.data_ptr<float>();
    return {.rows = static_cast<int>(rows.size(0)),
            .width = static_cast<int>(rows.size(1)),
            .values = std::vector<float>(data, data + rows.numel())};
  }

  torch::jit::Module embeddings_;
  torch::jit::Module pooling_;
  std::vector<TorchLayer> layers_;  // Empty if streamed.
  // The layers if streamed. Their weights are pages of `file_`.
  std::vector<torch::jit::Module> stored_layers_;
  std::shared_ptr<const MappedFile> file_;
  const TorchOptions options_;
  const c10::Device device_;
  const Family family_;
  const int vector_size_;
  bool flash_ = false;
  std::unique_ptr<const TorchFused> fused_;  // Null if LibTorch's operations are used.
};

}  // namespace

absl::Status StatusOfException(const std::exception& error) {
  // How LibTorch's allocators of a CPU and a GPU, cuBLAS and cuDNN, and the standard library say it.
  static constexpr absl::string_view kOutOfMemory[] = {"can't allocate memory", "not enough memory", "out of memory",
                                                       "STATUS_ALLOC_FAILED", "bad_alloc"};
  const absl::string_view text = error.what();
  // The interpreter puts a traceback before the message: what() ends with "RuntimeError: ...".
  const size_t cause = text.rfind("RuntimeError: ");
  const absl::string_view words = cause == absl::string_view::npos ? text : text.substr(cause);
  const std::string first_line(words.substr(0, words.find('\n')));
  const bool out_of_memory =
      dynamic_cast<const std::bad_alloc*>(&error) != nullptr ||
      std::ranges::any_of(kOutOfMemory, [text](absl::string_view said) { return absl::StrContains(text, said); });
  return out_of_memory ? EncoderOutOfMemory(first_line) : EncoderFailed(first_line);
}

std::unique_ptr<Encoder> MakeTorchEncoder(const MappedModule& loaded, const TorchOptions& options,
                                          const ModelManifest& manifest) {
  return std::make_unique<TorchEncoder>(loaded, options, manifest);
}

}  // namespace longembed
