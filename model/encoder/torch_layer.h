// One layer of a graph, its attention perhaps replaced. Includes torch; for model/encoder's own use.
#ifndef LONGEMBED_MODEL_ENCODER_TORCH_LAYER_H_
#define LONGEMBED_MODEL_ENCODER_TORCH_LAYER_H_

#include <torch/script.h>

#include <optional>
#include <vector>

#include "model/encoder/torch_attention.h"

namespace longembed {

// Runs forward()'s calls one by one (torch_graph.h), tries AttendPacked for attention and TorchFused for other parts
// first if configured, and has FillByFormula replace rows that no attention computes. A layer that does anything but
// call parts and add runs as it is. Multiple threads can call Run.
class TorchLayer {
 public:
  explicit TorchLayer(const torch::jit::Module& layer);

  // The arguments of forward() of layer `number`; without `context` the layer runs as it is. Throws what torch throws,
  // and where the batch needs attention by formula and the layer's own is unknown.
  at::Tensor Run(const std::vector<c10::IValue>& arguments, const TorchAttentionBatch* context, int number);

  bool walked() const { return calls_.has_value(); }

 private:
  c10::IValue RunCall(PartCall& call, const std::vector<c10::IValue>& values, const TorchAttentionBatch& context);
  // Runs a sum and the norm of it that follows as one; false where they are something else.
  bool RunSumAndNorm(size_t call, std::vector<c10::IValue>& values, const TorchFused* fused) const;
  // The result of an attention with the rows that FillByFormula computes.
  c10::IValue Fill(const PartCall& call, const std::vector<c10::IValue>& values, const TorchAttentionBatch& context,
                   int number, c10::IValue attended) const;
  bool IsAttention(const PartCall& call) const;

  torch::jit::Module layer_;
  std::optional<LayerCalls> calls_;
  size_t offsets_ = 0;  // forward()'s last argument, sequence_offsets, which every attention is called with.
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_TORCH_LAYER_H_
