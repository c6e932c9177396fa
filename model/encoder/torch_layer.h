// One layer of a graph, its attention perhaps replaced. Includes torch; for model/encoder's own use.
#ifndef LONGEMBED_MODEL_ENCODER_TORCH_LAYER_H_
#define LONGEMBED_MODEL_ENCODER_TORCH_LAYER_H_

#include <torch/script.h>

#include <optional>
#include <vector>

#include "model/encoder/torch_attention.h"

namespace longembed {

// Runs forward()'s calls one by one (torch_graph.h) and gives attention to AttendPacked first. A layer that does
// anything but call parts and add runs as it is. Multiple threads can call Run.
class TorchLayer {
 public:
  explicit TorchLayer(const torch::jit::Module& layer);

  // The arguments of forward(); without `context` the layer runs as it is.
  at::Tensor Run(const std::vector<c10::IValue>& arguments, const TorchAttentionBatch* context);

  bool walked() const { return calls_.has_value(); }

 private:
  c10::IValue RunCall(PartCall& call, const std::vector<c10::IValue>& values, const TorchAttentionBatch& context);

  torch::jit::Module layer_;
  std::optional<LayerCalls> calls_;
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_TORCH_LAYER_H_
