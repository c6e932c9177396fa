// Attention of single sequences, computed directly by its formula, for methods that neither LibTorch's kernels nor the
// graph support: attention calibration (arXiv 2601.16934) and dual chunk attention (arXiv 2402.17463). Memory does not
// grow with the square of a sequence's length. Includes torch, so for use within model/encoder only.
#ifndef LONGEMBED_MODEL_ENCODER_TORCH_EXPLICIT_ATTENTION_H_
#define LONGEMBED_MODEL_ENCODER_TORCH_EXPLICIT_ATTENTION_H_

#include <ATen/core/Tensor.h>

#include "model/encoder/packed_batch.h"
#include "model/encoder/torch_graph.h"

namespace longembed {

// Returns whether a sequence of the batch needs FillExplicitly.
bool NeedsExplicitAttention(const PackedBatch& batch);

// Replaces those rows of `context` [T, heads d] whose attention in layer `layer` is calibrated or chunked. qkv is [T,
// (heads + 2 key_value_heads) d]. rotary is float32 [1 or 3, 2, T, R / 2], or undefined without rotary positions.
// relative_bias is [heads, 2 max_distance + 1], or undefined if there is none. Throws torch's exceptions.
void FillExplicitly(const at::Tensor& qkv, const AttentionHeads& shape, const at::Tensor& rotary,
                    const at::Tensor& relative_bias, const PackedBatch& batch, int layer, at::Tensor& context);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_TORCH_EXPLICIT_ATTENTION_H_
