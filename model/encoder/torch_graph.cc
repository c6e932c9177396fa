#include "model/encoder/torch_graph.h"

#include <set>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "system/return_if_error.h"

namespace longembed {
namespace {

using torch::jit::Module;
using torch::jit::Node;

// Returns the members of each class of the exporter's modules. A module with other members computes something else.
const std::unordered_map<std::string_view, std::set<std::string_view>>& KnownParts() {
  static const auto* const parts = new std::unordered_map<std::string_view, std::set<std::string_view>>{
      {"Dense", {"linear", "activation"}},
      {"DensePooling", {"pooling", "heads"}},
      {"Embeddings", {"word", "position", "norm"}},
      {"GELU", {"approximate"}},
      {"GeGlu", {}},
      {"GeGluTanh", {}},
      {"HeadNorm", {"heads", "key_value_heads", "epsilon", "query", "key"}},
      {"Identity", {}},
      {"LayerNorm", {"weight", "bias", "epsilon"}},
      {"Linear", {"weight", "bias"}},
      {"LinearGelu", {"weight", "bias"}},
      {"LinearNoBias", {"weight"}},
      {"LocalRotaryAttention", {"heads", "key_value_heads", "window", "rotary_base", "block"}},
      {"NormedSpanMean", {"norm", "mean"}},
      {"NormedWordEmbeddings", {"word", "weight", "bias", "epsilon"}},
      {"PackedAttention", {"heads"}},
      {"ReLU", {"inplace"}},
      {"RelativeBiasAttention", {"heads", "farthest", "tile_elements", "bias"}},
      {"ResidualNorm", {"weight", "bias", "epsilon"}},
      {"RmsNorm", {"weight", "epsilon"}},
      {"RotaryAttention", {"heads", "key_value_heads", "causal", "tile_elements"}},
      {"SpanMean", {}},
      {"SwiGlu", {}},
      {"Tanh", {}},
      {"WordEmbeddings", {"word"}}};
  return *parts;
}

// Returns whether every TorchScript module has a member of this name.
bool IsOfEveryModule(std::string_view name) { return name == "training" || name == "_is_full_backward_hook"; }

bool IsPlainSum(const Node& node) {
  const auto factor = torch::jit::toIValue(node.input(2));
  return factor.has_value() && factor->isInt() && factor->toInt() == 1;
}

std::optional<AttentionHeads> AttentionHeadsOf(const Module& part) {
  const std::string kind = ClassOf(part);
  const auto number = [&part](const char* name) { return part.type()->getConstant(name).toInt(); };
  // Attention that can leave some tokens unattended. For sequences without such tokens it equals the plain class.
  if (kind == "UnattendedPackedAttention")
    return AttentionHeads{.heads = number("heads"), .key_value_heads = number("heads"), .packed = false};
  if (kind == "UnattendedRotaryAttention") {
    std::optional<AttentionHeads> whole = AttentionHeadsOf(part.attr("whole").toModule());
    if (whole.has_value()) whole->packed = false;
    return whole;
  }
  if (!CheckKnownPart(part).ok()) return std::nullopt;
  if (kind == "RelativeBiasAttention") {
    return AttentionHeads{
        .heads = number("heads"), .key_value_heads = number("heads"), .biased = true, .packed = false};
  }
  if (kind == "PackedAttention") return AttentionHeads{number("heads"), number("heads"), false};
  if (kind != "RotaryAttention") return std::nullopt;
  return AttentionHeads{number("heads"), number("key_value_heads"), part.type()->getConstant("causal").toBool()};
}

class CallReader {
 public:
  explicit CallReader(const Module& layer) : graph_(layer.get_method("forward").graph()) {
    parts_.emplace(graph_->inputs()[0], layer);
    for (size_t i = 1; i < graph_->inputs().size(); ++i) places_.emplace(graph_->inputs()[i], read_.values++);
  }

  absl::StatusOr<LayerCalls> Read() {
    for (const Node* node : graph_->nodes()) {
      RETURN_IF_ERROR(ReadNode(*node));
    }
    const auto result = places_.find(graph_->outputs()[0]);
    if (graph_->outputs().size() != 1 || result == places_.end()) {
      return NoKernelFor("a layer whose result is not one known value");
    }
    read_.result = result->second;
    FindOnlyReaders();
    return std::move(read_);
  }

 private:
  absl::Status ReadNode(const Node& node) {
    if (node.kind() == c10::prim::Constant) return absl::OkStatus();
    if (node.kind() == c10::prim::GetAttr) return ReadPart(node);
    if (node.kind() == c10::prim::CallMethod) {
      const auto called = parts_.find(node.input(0));
      if (called == parts_.end()) return NoKernelFor("a call with something unknown");
      if (node.s(c10::attr::name) != "forward") return NoKernelFor("a call of something other than forward");
      return Add(node, called->second, 1, node.inputs().size());
    }
    if (node.kind() != c10::aten::add) return NoKernelFor(node.kind().toQualString());
    if (!IsPlainSum(node)) return NoKernelFor("a scaled addition");
    return Add(node, std::nullopt, 0, 2);
  }

  absl::Status ReadPart(const Node& node) {
    const auto owner = parts_.find(node.input(0));
    if (owner == parts_.end()) return NoKernelFor("an attribute of something unknown");
    const c10::IValue part = owner->second.attr(node.s(c10::attr::name));
    if (!part.isModule()) return NoKernelFor("a value of its own beside its parts");
    parts_.emplace(node.output(), part.toModule());
    return absl::OkStatus();
  }

  // Adds a call whose arguments are the node's inputs [first, last).
  absl::Status Add(const Node& node, std::optional<Module> part, size_t first, size_t last) {
    PartCall call{.part = std::move(part), .out = read_.values++};
    if (call.part.has_value()) {
      call.attention = AttentionHeadsOf(*call.part);
      if (CheckKnownPart(*call.part).ok()) call.kind = ClassOf(*call.part);
    }
    for (size_t i = first; i < last; ++i) {
      const auto place = places_.find(node.input(i));
      if (place == places_.end()) return NoKernelFor("a call or sum of something unknown");
      call.in.push_back(place->second);
    }
    places_.emplace(node.output(), call.out);
    read_.calls.push_back(std::move(call));
    return absl::OkStatus();
  }

  // Sets `only_reader`. Arguments of forward() belong to its caller, so they are excluded.
  void FindOnlyReaders() {
    const size_t arguments = graph_->inputs().size() - 1;
    std::vector<int> readers(read_.values, 0);
    for (const PartCall& call : read_.calls) {
      for (const size_t in : call.in) ++readers[in];
    }
    ++readers[read_.result];
    for (PartCall& call : read_.calls)
      call.only_reader = !call.in.empty() && call.in[0] >= arguments && readers[call.in[0]] == 1;
  }

  const std::shared_ptr<torch::jit::Graph> graph_;
  std::unordered_map<const torch::jit::Value*, Module> parts_;
  std::unordered_map<const torch::jit::Value*, size_t> places_;
  LayerCalls read_;
};

}  // namespace

absl::StatusOr<LayerCalls> ReadLayerCalls(const Module& layer) { return CallReader(layer).Read(); }

std::string ClassOf(const Module& module) { return module.type()->name()->name(); }

absl::Status CheckKnownPart(const Module& part) {
  const std::string kind = ClassOf(part);
  const auto known = KnownParts().find(kind);
  if (known == KnownParts().end()) return NoKernelFor(absl::StrCat("a part of class ", kind));
  const c10::ClassTypePtr type = part.type();
  for (size_t i = 0; i < type->numAttributes() + type->numConstants(); ++i) {
    const size_t attributes = type->numAttributes();
    const std::string& name = i < attributes ? type->getAttributeName(i) : type->getConstantName(i - attributes);
    if (!IsOfEveryModule(name) && !known->second.contains(name)) {
      return NoKernelFor(absl::StrCat("a part of class ", kind, " with ", name));
    }
  }
  return absl::OkStatus();
}

absl::Status NoKernelFor(const std::string& what) {
  return absl::UnimplementedError(absl::StrCat("the graph holds ", what, ", for which there is no kernel"));
}

}  // namespace longembed
