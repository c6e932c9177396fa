// Attention over a whole packed batch in one call of LibTorch, for devices on which one call per sequence costs more
// than its computation. Includes torch, so for use within model/encoder only.
#ifndef LONGEMBED_MODEL_ENCODER_TORCH_ATTENTION_H_
#define LONGEMBED_MODEL_ENCODER_TORCH_ATTENTION_H_

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "model/encoder/packed_batch.h"
#include "model/encoder/torch_fused.h"
#include "model/encoder/torch_graph.h"

namespace longembed {

// State shared by the layers of one batch. Tensors are on the batch's device.
struct TorchAttentionBatch {
  explicit TorchAttentionBatch(const PackedBatch& batch) : batch(batch) {}

  const PackedBatch& batch;
  at::Tensor rotary;            // float32 [1 or 3, 2, T, R / 2]; undefined without rotary positions.
  at::Tensor sequence_offsets;  // int32 [S + 1]
  // float32 [T, 1, 1] if the sequences' scales differ; else undefined.
  at::Tensor query_scale;
  bool one_call = true;               // Whether AttendPacked is tried before the graph's own attention.
  bool flash = false;                 // Whether the device supports FlashAttention in the model's precision.
  const TorchFused* fused = nullptr;  // This project's kernels; null if LibTorch's operations are used.
};

// Rotates heads [T, heads, d] by table, float32 [2, T, R / 2]. Computes in float32. Components from R on are not
// rotated.
at::Tensor Rotate(const at::Tensor& heads, const at::Tensor& table);

// Returns whether `device` supports FlashAttention over packed sequences in `type`, by trying it.
bool RunsFlashAttention(c10::Device device, at::ScalarType type);

// Returns the value of TorchAttentionBatch::query_scale.
at::Tensor QueryScaleRows(const PackedBatch& batch, c10::Device device);

// Returns the attention [T, heads d] of qkv [T, (heads + 2 key_value_heads) d]. Uses FlashAttention over packed
// sequences (arXiv 2307.08691) on CUDA in fp16 and bf16, and elsewhere one padded call if padding at most doubles the
// batch and the mask is not too large. Returns nullopt if neither is possible, or if a sequence has a neighbor window
// (SelfExtend); the graph's own attention handles these. If `may_write`, qkv may be overwritten.
std::optional<at::Tensor> AttendPacked(const at::Tensor& qkv, const AttentionHeads& shape,
                                       const TorchAttentionBatch& context, bool may_write = false);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_TORCH_ATTENTION_H_
