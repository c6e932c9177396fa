#include "model/encoder/torch_layer.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "model/encoder/torch_explicit_attention.h"

namespace longembed {

TorchLayer::TorchLayer(const torch::jit::Module& layer) : layer_(layer) {
  absl::StatusOr<LayerCalls> calls = ReadLayerCalls(layer);
  if (calls.ok()) calls_ = *std::move(calls);
  offsets_ = layer.get_method("forward").graph()->inputs().size() - 2;  // The module itself is not counted.
}

at::Tensor TorchLayer::Run(const std::vector<c10::IValue>& arguments, const TorchAttentionBatch* context, int number) {
  const bool is_explicit = context != nullptr && NeedsExplicitAttention(context->batch);
  if (is_explicit && !is_decomposed())
    throw std::runtime_error("the graph has a layer whose attention is unknown; export the model again");
  if (context == nullptr || !is_decomposed()) return layer_.forward(arguments).toTensor();
  std::vector<c10::IValue> values(calls_->values);
  std::copy(arguments.begin(), arguments.end(), values.begin());
  for (size_t i = 0; i < calls_->calls.size(); ++i) {
    if (RunSumAndNorm(i, values, context->fused)) {
      ++i;
      continue;
    }
    PartCall& call = calls_->calls[i];
    values[call.out] = RunCall(call, values, *context);
    if (is_explicit && IsAttention(call)) values[call.out] = Fill(call, values, *context, number, values[call.out]);
  }
  return values[calls_->result].toTensor();
}

c10::IValue TorchLayer::RunCall(PartCall& call, const std::vector<c10::IValue>& values,
                                const TorchAttentionBatch& context) {
  if (!call.part.has_value()) return values[call.in[0]].toTensor() + values[call.in[1]].toTensor();
  if (context.one_call && call.attention.has_value() && call.attention->packed) {
    // FillExplicitly reads the input afterwards, so it must not be overwritten.
    const bool may_write = call.only_reader && !NeedsExplicitAttention(context.batch);
    std::optional<at::Tensor> attended =
        AttendPacked(values[call.in[0]].toTensor(), *call.attention, context, may_write);
    if (attended.has_value()) return *std::move(attended);
  }
  std::vector<c10::IValue> inputs;
  for (const size_t in : call.in) inputs.push_back(values[in]);
  if (context.fused != nullptr && !call.kind.empty()) {
    std::optional<at::Tensor> result = context.fused->RunPart(call.kind, *call.part, inputs);
    if (result.has_value()) return *std::move(result);
  }
  return call.part->forward(inputs);
}

bool TorchLayer::RunSumAndNorm(size_t call, std::vector<c10::IValue>& values, const TorchFused* fused) const {
  if (fused == nullptr || calls_->calls[call].part.has_value() || call + 1 == calls_->calls.size()) return false;
  const PartCall& sum = calls_->calls[call];
  const PartCall& norm = calls_->calls[call + 1];
  if (norm.kind.empty() || norm.in != std::vector<size_t>{sum.out}) return false;
  at::Tensor total;
  std::optional<at::Tensor> normed =
      fused->RunNorm(norm.kind, *norm.part, values[sum.in[0]].toTensor(), values[sum.in[1]].toTensor(), &total);
  if (!normed.has_value()) return false;
  values[sum.out] = std::move(total);
  values[norm.out] = *std::move(normed);
  return true;
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
                             ", which is not computed explicitly; use plain attention");
  }
  at::Tensor rows = attended.toTensor();
  const at::Tensor bias = call.attention->biased ? call.part->attr("bias").toTensor() : at::Tensor();
  FillExplicitly(values[call.in[0]].toTensor(), *call.attention, context.rotary, bias, context.batch, number, rows);
  return rows;
}

}  // namespace longembed
