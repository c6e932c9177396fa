// One layer of a graph, its attention perhaps replaced. Includes torch; for model/encoder's own use.
#ifndef LONGEMBED_MODEL_ENCODER_TORCH_LAYER_H_
#define LONGEMBED_MODEL_ENCODER_TORCH_LAYER_H_

#include <torch/script.h>

#include <optional>
#include <vector>

#include "model/encoder/torch_attention.h"

namespace longembed {

// Walks forward()'s calls of the layer's parts, as torch_lowering.h does, and gives attention to AttendPacked first. A
// layer that holds anything but parts and additions runs as it is. Multiple threads can call Run.
class TorchLayer {
 public:
  explicit TorchLayer(const torch::jit::Module& layer);

  // The arguments of forward(); without `context` the layer runs as it is.
  at::Tensor Run(const std::vector<c10::IValue>& arguments, const TorchAttentionBatch* context);

  bool walked() const { return !steps_.empty(); }

 private:
  // values[out] = part(values[in]...), or the sum of two values without a part.
  struct Step {
    std::optional<torch::jit::Module> part;
    std::optional<TorchAttentionShape> attention;
    std::vector<size_t> in;
    size_t out = 0;
  };

  void ReadSteps();

  torch::jit::Module layer_;
  std::vector<Step> steps_;
  size_t values_ = 0;
  size_t result_ = 0;
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_TORCH_LAYER_H_
