// Attention of a whole packed batch in one call of LibTorch's, for devices where a call a sequence costs more than what
// it computes. Includes torch; for model/encoder's own use.
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
  at::Tensor rotary;                  // float32 [1 or 3, 2, T, R / 2]; undefined without rotary positions.
  at::Tensor sequence_offsets;        // int32 [S + 1]
  at::Tensor query_scale;             // float32 [T, 1, 1], where the sequences' scales differ; else undefined.
  bool one_call = true;               // AttendPacked is tried; else each part runs as it is.
  bool flash = false;                 // The device runs FlashAttention in the model's precision.
  const TorchFused* fused = nullptr;  // Kernels of our own; null: LibTorch's operations.
};

// [T, heads, d] by float32 [2, T, R / 2], in float32; components from R on stay as they are.
at::Tensor Rotate(const at::Tensor& heads, const at::Tensor& table);

// Whether `device` runs FlashAttention over packed sequences in `type`: found by trying.
bool RunsFlashAttention(c10::Device device, at::ScalarType type);

// TorchAttentionBatch::query_scale.
at::Tensor QueryScaleRows(const PackedBatch& batch, c10::Device device);

// qkv [T, (heads + 2 key_value_heads) d] -> [T, heads d]: FlashAttention over packed sequences (arXiv 2307.08691) on
// CUDA in fp16 and bf16; elsewhere one padded call, where padding does not double the batch and no mask grows large.
// Nothing when neither fits, or when a sequence has a neighbor window (SelfExtend): the graph's own attention does
// these. With `may_write` qkv may be overwritten.
std::optional<at::Tensor> AttendPacked(const at::Tensor& qkv, const AttentionHeads& shape,
                                       const TorchAttentionBatch& context, bool may_write = false);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_TORCH_ATTENTION_H_
