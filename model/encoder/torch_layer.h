// Runs one layer of a graph, with faster replacements for some of its parts. Includes torch, so for use within
// model/encoder only.
#ifndef LONGEMBED_MODEL_ENCODER_TORCH_LAYER_H_
#define LONGEMBED_MODEL_ENCODER_TORCH_LAYER_H_

#include <torch/script.h>

#include <optional>
#include <vector>

#include "model/encoder/torch_attention.h"

namespace longembed {

// A layer that runs the calls of forward() one by one (torch_graph.h). If configured, it tries AttendPacked for
// attention and TorchFused for other parts first. FillExplicitly then replaces rows that no other attention supports. A
// layer whose forward() does more than call parts and add their results runs unchanged. Multiple threads can call Run.
class TorchLayer {
 public:
  explicit TorchLayer(const torch::jit::Module& layer);

  // Runs layer `number` with the arguments of forward(). Without `context`, the graph's forward() runs unchanged.
  // Throws torch's exceptions, and std::runtime_error if the batch needs FillExplicitly but the layer's attention is
  // unknown.
  at::Tensor Run(const std::vector<c10::IValue>& arguments, const TorchAttentionBatch* context, int number);

  bool is_decomposed() const { return calls_.has_value(); }

 private:
  c10::IValue RunCall(PartCall& call, const std::vector<c10::IValue>& values, const TorchAttentionBatch& context);
  // Runs a sum and the norm that follows it as one kernel. Returns false if the calls are something else.
  bool RunSumAndNorm(size_t call, std::vector<c10::IValue>& values, const TorchFused* fused) const;
  // Returns the result of an attention after FillExplicitly has replaced its rows.
  c10::IValue Fill(const PartCall& call, const std::vector<c10::IValue>& values, const TorchAttentionBatch& context,
                   int number, c10::IValue attended) const;
  bool IsAttention(const PartCall& call) const;

  torch::jit::Module layer_;
  std::optional<LayerCalls> calls_;
  // Index of sequence_offsets, the last argument of forward(), which every attention receives.
  size_t offsets_ = 0;
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_TORCH_LAYER_H_
