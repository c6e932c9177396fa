// Attention of single sequences by its formula, for requests that LibTorch's kernels and the graph do not compute:
// attention calibration (arXiv 2601.16934), dual chunk attention (arXiv 2402.17463). Memory does not grow with the
// square of a length. Includes torch; for model/encoder's own use.
#ifndef LONGEMBED_MODEL_ENCODER_TORCH_FORMULA_H_
#define LONGEMBED_MODEL_ENCODER_TORCH_FORMULA_H_

#include <ATen/core/Tensor.h>

#include "model/encoder/packed_batch.h"
#include "model/encoder/torch_graph.h"

namespace longembed {

// Whether some sequence of the batch has attention that FillByFormula computes.
bool NeedsFormula(const PackedBatch& batch);

// Replaces the rows of `context` [T, heads d] that the attention of layer `layer` has otherwise than plainly. qkv
// [T, (heads + 2 key_value_heads) d]; rotary float32 [1 or 3, 2, T, R / 2], undefined without rotary positions;
// relative_bias [heads, 2 farthest + 1], undefined without one. Throws what torch throws.
void FillByFormula(const at::Tensor& qkv, const AttentionHeads& shape, const at::Tensor& rotary,
                   const at::Tensor& relative_bias, const PackedBatch& batch, int layer, at::Tensor& context);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_TORCH_FORMULA_H_
