#include "model/encoder/torch_lowering.h"

#include <string>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"

namespace longembed {
namespace {

using torch::jit::Module;
using torch::jit::Node;

absl::Status Unknown(const std::string& what) {
  return absl::UnimplementedError(absl::StrCat("the graph holds ", what, ", for which there is no kernel"));
}

std::string ClassOf(const Module& module) { return module.type()->name()->name(); }

Weight ToWeight(const at::Tensor& tensor) {
  auto owner = std::make_shared<at::Tensor>(tensor.to(at::kCPU, at::kFloat).contiguous());
  const bool matrix = owner->dim() == 2;
  return {.data = owner->data_ptr<float>(),
          .rows = matrix ? owner->size(0) : 1,
          .columns = owner->size(matrix ? 1 : 0),
          .owner = owner};
}

Weight WeightOf(const Module& module, const std::string& name) { return ToWeight(module.attr(name).toTensor()); }

c10::IValue ConstantOf(const Module& module, const std::string& name) {
  return module.type()->hasConstant(name) ? module.type()->getConstant(name) : module.attr(name);
}

float EpsilonOf(const Module& module) { return static_cast<float>(ConstantOf(module, "epsilon").toDouble()); }

// Lowers the forward() of one layer after the other.
class LayerLowering {
 public:
  explicit LayerLowering(Program& program) : program_(program) {}

  absl::StatusOr<Value> Lower(const Module& layer, Value hidden) {
    const auto graph = layer.get_method("forward").graph();
    values_.clear();
    modules_.clear();
    ops_.clear();
    modules_.emplace(graph->inputs()[0], layer);
    values_.emplace(graph->inputs()[1], hidden);
    for (const Node* node : graph->nodes()) {
      if (absl::Status status = LowerNode(*node); !status.ok()) return status;
    }
    const auto result = values_.find(graph->outputs()[0]);
    if (graph->outputs().size() != 1 || result == values_.end()) return Unknown("a layer that returns something else");
    program_.layers.push_back(std::move(ops_));
    return result->second;
  }

 private:
  absl::Status LowerNode(const Node& node) {
    if (node.kind() == c10::prim::Constant) return absl::OkStatus();
    if (node.kind() == c10::prim::GetAttr) {
      const auto owner = modules_.find(node.input(0));
      if (owner == modules_.end()) return Unknown("an attribute of something unknown");
      const c10::IValue part = owner->second.attr(node.s(c10::attr::name));
      if (!part.isModule()) return Unknown("a value of its own beside its parts");
      modules_.emplace(node.output(), part.toModule());
      return absl::OkStatus();
    }
    if (node.kind() == c10::aten::add) {
      const auto a = values_.find(node.input(0)), b = values_.find(node.input(1));
      if (a == values_.end() || b == values_.end()) return Unknown("an addition of something unknown");
      const auto factor = torch::jit::toIValue(node.input(2));
      if (!factor.has_value() || !factor->isInt() || factor->toInt() != 1) return Unknown("a scaled addition");
      if (program_.widths[a->second] != program_.widths[b->second]) return Unknown("an addition of unequal widths");
      const Value out = NewValue(program_.widths[a->second]);
      ops_.emplace_back(AddOp{.a = a->second, .b = b->second, .out = out});
      values_.emplace(node.output(), out);
      return absl::OkStatus();
    }
    if (node.kind() == c10::prim::CallMethod) return LowerCall(node);
    return Unknown(node.kind().toQualString());
  }

  absl::Status LowerCall(const Node& node) {
    const auto called = modules_.find(node.input(0));
    const auto in = values_.find(node.input(1));
    if (called == modules_.end() || in == values_.end()) return Unknown("a call with something unknown");
    if (node.s(c10::attr::name) != "forward") return Unknown("a call of something other than forward");
    const Module& module = called->second;
    const std::string kind = ClassOf(module);
    const int width = program_.widths[in->second];
    Value out = 0;
    if (kind == "Linear" || kind == "LinearGelu" || kind == "LinearNoBias") {
      LinearOp op{.in = in->second, .weight = WeightOf(module, "weight"), .gelu = kind == "LinearGelu"};
      if (op.weight.columns != width) return Unknown("a linear layer of another width");
      if (kind != "LinearNoBias") op.bias = WeightOf(module, "bias");
      out = op.out = NewValue(static_cast<int>(op.weight.rows));
      ops_.emplace_back(std::move(op));
    } else if (kind == "ResidualNorm") {
      const auto residual = values_.find(node.input(2));
      if (residual == values_.end() || program_.widths[residual->second] != width) {
        return Unknown("a norm of something unknown");
      }
      out = NewValue(width);
      ops_.emplace_back(ResidualNormOp{.update = in->second,
                                       .residual = residual->second,
                                       .out = out,
                                       .weight = WeightOf(module, "weight"),
                                       .bias = WeightOf(module, "bias"),
                                       .epsilon = EpsilonOf(module)});
    } else if (kind == "RmsNorm") {
      out = NewValue(width);
      ops_.emplace_back(
          RmsNormOp{.in = in->second, .out = out, .weight = WeightOf(module, "weight"), .epsilon = EpsilonOf(module)});
    } else if (kind == "SwiGlu") {
      out = NewValue(width / 2);
      ops_.emplace_back(SwiGluOp{.in = in->second, .out = out});
    } else if (kind == "PackedAttention" || kind == "RotaryAttention") {
      AttentionOp op{.in = in->second, .heads = static_cast<int>(ConstantOf(module, "heads").toInt())};
      op.key_value_heads = op.heads;
      if (kind == "RotaryAttention") {
        op.key_value_heads = static_cast<int>(ConstantOf(module, "key_value_heads").toInt());
        op.causal = ConstantOf(module, "causal").toBool();
      }
      if (op.heads < 1 || op.key_value_heads < 1 || op.heads % op.key_value_heads != 0 ||
          width % (op.heads + 2 * op.key_value_heads) != 0) {
        return Unknown("attention whose heads do not divide its width");
      }
      out = op.out = NewValue(width / (op.heads + 2 * op.key_value_heads) * op.heads);
      ops_.emplace_back(op);
    } else {
      return Unknown(absl::StrCat("a part of class ", kind));
    }
    values_.emplace(node.output(), out);
    return absl::OkStatus();
  }

  Value NewValue(int width) {
    program_.widths.push_back(width);
    return static_cast<Value>(program_.widths.size()) - 1;
  }

  Program& program_;
  std::vector<Op> ops_;
  std::unordered_map<const torch::jit::Value*, Value> values_;
  std::unordered_map<const torch::jit::Value*, Module> modules_;
};

absl::Status LowerEmbeddings(const Module& embeddings, Program& program) {
  const std::string kind = ClassOf(embeddings);
  program.word = WeightOf(embeddings, "word");
  if (kind == "Embeddings") {
    const Module norm = embeddings.attr("norm").toModule();
    if (ClassOf(norm) != "ResidualNorm") return Unknown(absl::StrCat("embeddings with a ", ClassOf(norm)));
    program.position = WeightOf(embeddings, "position");
    program.embedding_norm_weight = WeightOf(norm, "weight");
    program.embedding_norm_bias = WeightOf(norm, "bias");
    program.embedding_norm_epsilon = EpsilonOf(norm);
  } else if (kind == "NormedWordEmbeddings") {
    program.embedding_norm_weight = WeightOf(embeddings, "weight");
    program.embedding_norm_bias = WeightOf(embeddings, "bias");
    program.embedding_norm_epsilon = EpsilonOf(embeddings);
  } else if (kind != "WordEmbeddings") {
    return Unknown(absl::StrCat("embeddings of class ", kind));
  }
  program.widths.push_back(static_cast<int>(program.word.columns));
  return absl::OkStatus();
}

absl::Status LowerPooling(const Module& pooling, Program& program) {
  const std::string kind = ClassOf(pooling);
  if (kind == "SpanMean") return absl::OkStatus();
  if (kind != "NormedSpanMean") return Unknown(absl::StrCat("pooling of class ", kind));
  const Module norm = pooling.attr("norm").toModule();
  if (ClassOf(norm) != "RmsNorm") return Unknown(absl::StrCat("a last norm of class ", ClassOf(norm)));
  program.final_norm = WeightOf(norm, "weight");
  program.final_norm_epsilon = EpsilonOf(norm);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Program> LowerToProgram(const Module& module) {
  Program program;
  if (absl::Status status = LowerEmbeddings(module.attr("embeddings").toModule(), program); !status.ok()) return status;
  LayerLowering lowering(program);
  Value hidden = program.input;
  for (const Module& layer : module.attr("layers").toModule().children()) {
    absl::StatusOr<Value> out = lowering.Lower(layer, hidden);
    if (!out.ok()) return out.status();
    hidden = *out;
  }
  program.output = hidden;
  if (absl::Status status = LowerPooling(module.attr("pooling").toModule(), program); !status.ok()) return status;
  return program;
}

}  // namespace longembed
