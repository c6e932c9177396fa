#include "model/encoder/torch_layer.h"

#include <algorithm>
#include <utility>

namespace longembed {

TorchLayer::TorchLayer(const torch::jit::Module& layer) : layer_(layer) {
  absl::StatusOr<LayerCalls> calls = ReadLayerCalls(layer);
  if (calls.ok()) calls_ = *std::move(calls);
}

at::Tensor TorchLayer::Run(const std::vector<c10::IValue>& arguments, const TorchAttentionBatch* context) {
  if (context == nullptr || !walked()) return layer_.forward(arguments).toTensor();
  std::vector<c10::IValue> values(calls_->values);
  std::copy(arguments.begin(), arguments.end(), values.begin());
  for (PartCall& call : calls_->calls) values[call.out] = RunCall(call, values, *context);
  return values[calls_->result].toTensor();
}

c10::IValue TorchLayer::RunCall(PartCall& call, const std::vector<c10::IValue>& values,
                                const TorchAttentionBatch& context) {
  if (!call.part.has_value()) return values[call.in[0]].toTensor() + values[call.in[1]].toTensor();
  if (call.attention.has_value()) {
    std::optional<at::Tensor> attended = AttendPacked(values[call.in[0]].toTensor(), *call.attention, context);
    if (attended.has_value()) return *std::move(attended);
  }
  std::vector<c10::IValue> inputs;
  for (const size_t in : call.in) inputs.push_back(values[in]);
  return call.part->forward(inputs);
}

}  // namespace longembed
