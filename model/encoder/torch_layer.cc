#include "model/encoder/torch_layer.h"

#include <unordered_map>
#include <utility>

namespace longembed {

namespace {

std::optional<TorchAttentionShape> AttentionOf(const torch::jit::Module& part) {
  const std::string kind = part.type()->name()->name();
  const auto number = [&part](const char* name) { return part.type()->getConstant(name).toInt(); };
  if (kind == "PackedAttention") return TorchAttentionShape{number("heads"), number("heads"), false};
  if (kind != "RotaryAttention") return std::nullopt;
  return TorchAttentionShape{number("heads"), number("key_value_heads"), part.type()->getConstant("causal").toBool()};
}

bool IsPlainSum(const torch::jit::Node& node) {
  if (node.kind() != c10::aten::add) return false;
  const auto factor = torch::jit::toIValue(node.input(2));
  return factor.has_value() && factor->isInt() && factor->toInt() == 1;
}

}  // namespace

TorchLayer::TorchLayer(const torch::jit::Module& layer) : layer_(layer) { ReadSteps(); }

void TorchLayer::ReadSteps() {
  const auto graph = layer_.get_method("forward").graph();
  std::unordered_map<const torch::jit::Value*, torch::jit::Module> parts{{graph->inputs()[0], layer_}};
  std::unordered_map<const torch::jit::Value*, size_t> places;
  for (size_t i = 1; i < graph->inputs().size(); ++i) places.emplace(graph->inputs()[i], values_++);
  std::vector<Step> steps;
  for (const torch::jit::Node* node : graph->nodes()) {
    if (node->kind() == c10::prim::Constant) continue;
    if (node->kind() == c10::prim::GetAttr) {
      const auto owner = parts.find(node->input(0));
      if (owner == parts.end()) return;
      const c10::IValue part = owner->second.attr(node->s(c10::attr::name));
      if (!part.isModule()) return;
      parts.emplace(node->output(), part.toModule());
      continue;
    }
    Step step;
    size_t first = 0, count = 2;  // An addition has two terms and a factor, which is 1.
    if (node->kind() == c10::prim::CallMethod) {
      const auto called = parts.find(node->input(0));
      if (called == parts.end() || node->s(c10::attr::name) != "forward") return;
      step.part = called->second;
      step.attention = AttentionOf(called->second);
      first = 1;
      count = node->inputs().size() - 1;
    } else if (!IsPlainSum(*node)) {
      return;
    }
    for (size_t i = first; i < first + count; ++i) {
      const auto place = places.find(node->input(i));
      if (place == places.end()) return;
      step.in.push_back(place->second);
    }
    step.out = values_++;
    places.emplace(node->output(), step.out);
    steps.push_back(std::move(step));
  }
  const auto result = places.find(graph->outputs()[0]);
  if (result == places.end()) return;
  result_ = result->second;
  steps_ = std::move(steps);
}

at::Tensor TorchLayer::Run(const std::vector<c10::IValue>& arguments, const TorchAttentionBatch* context) {
  if (context == nullptr || !walked()) return layer_.forward(arguments).toTensor();
  std::vector<c10::IValue> values(values_);
  std::copy(arguments.begin(), arguments.end(), values.begin());
  for (Step& step : steps_) {
    if (!step.part.has_value()) {
      values[step.out] = values[step.in[0]].toTensor() + values[step.in[1]].toTensor();
      continue;
    }
    std::optional<at::Tensor> fused;
    if (step.attention.has_value()) fused = AttendPacked(values[step.in[0]].toTensor(), *step.attention, *context);
    if (fused.has_value()) {
      values[step.out] = *std::move(fused);
      continue;
    }
    std::vector<c10::IValue> inputs;
    for (const size_t in : step.in) inputs.push_back(values[in]);
    values[step.out] = step.part->forward(inputs);
  }
  return values[result_].toTensor();
}

}  // namespace longembed
