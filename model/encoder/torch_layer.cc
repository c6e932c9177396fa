#include "model/encoder/torch_layer.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "model/encoder/torch_formula.h"

namespace longembed {

TorchLayer::TorchLayer(const torch::jit::Module& layer) : layer_(layer) {
  absl::StatusOr<LayerCalls> calls = ReadLayerCalls(layer);
  if (calls.ok()) calls_ = *std::move(calls);
  offsets_ = layer.get_method("forward").graph()->inputs().size() - 2;  // Without the module itself.
}

at::Tensor TorchLayer::Run(const std::vector<c10::IValue>& arguments, const TorchAttentionBatch* context, int number) {
  const bool formula = context != nullptr && NeedsFormula(context->batch);
  if (formula && !walked())
    throw std::runtime_error("the graph has a layer whose attention is unknown; export the model again");
  if (context == nullptr || !walked()) return layer_.forward(arguments).toTensor();
  std::vector<c10::IValue> values(calls_->values);
  std::copy(arguments.begin(), arguments.end(), values.begin());
  for (PartCall& call : calls_->calls) {
    values[call.out] = RunCall(call, values, *context);
    if (formula && IsAttention(call)) values[call.out] = Fill(call, values, *context, number, values[call.out]);
  }
  return values[calls_->result].toTensor();
}

c10::IValue TorchLayer::RunCall(PartCall& call, const std::vector<c10::IValue>& values,
                                const TorchAttentionBatch& context) {
  if (!call.part.has_value()) return values[call.in[0]].toTensor() + values[call.in[1]].toTensor();
  if (context.one_call && call.attention.has_value() && call.attention->packed) {
    std::optional<at::Tensor> attended = AttendPacked(values[call.in[0]].toTensor(), *call.attention, context);
    if (attended.has_value()) return *std::move(attended);
  }
  std::vector<c10::IValue> inputs;
  for (const size_t in : call.in) inputs.push_back(values[in]);
  return call.part->forward(inputs);
}

bool TorchLayer::IsAttention(const PartCall& call) const {
  return call.part.has_value() && std::ranges::find(call.in, offsets_) != call.in.end();
}

c10::IValue TorchLayer::Fill(const PartCall& call, const std::vector<c10::IValue>& values,
                             const TorchAttentionBatch& context, int number, c10::IValue attended) const {
  if (!call.attention.has_value()) {
    const std::string kind = ClassOf(*call.part);
    if (kind == "LocalRotaryAttention" || kind == "UnattendedLocalAttention") return attended;
    throw std::runtime_error("the graph has attention of class " + kind +
                             ", which has no formula; use plain attention");
  }
  at::Tensor rows = attended.toTensor();
  const at::Tensor bias = call.attention->biased ? call.part->attr("bias").toTensor() : at::Tensor();
  FillByFormula(values[call.in[0]].toTensor(), *call.attention, context.rotary, bias, context.batch, number, rows);
  return rows;
}

}  // namespace longembed
