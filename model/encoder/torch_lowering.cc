#include "model/encoder/torch_lowering.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/encoder/torch_graph.h"
#include "system/return_if_error.h"

namespace longembed {
namespace {

using torch::jit::Module;

Weight ToWeight(const at::Tensor& tensor) {
  auto owner =
      std::make_shared<at::Tensor>(tensor.to(at::kCPU, at::kFloat, /*non_blocking=*/false, /*copy=*/true).contiguous());
  const bool matrix = owner->dim() == 2;
  return {.data = owner->data_ptr<float>(),
          .rows = matrix ? owner->size(0) : 1,
          .columns = owner->size(matrix ? 1 : 0),
          .owner = owner};
}

Weight WeightOf(const Module& module, const std::string& name) { return ToWeight(module.attr(name).toTensor()); }

// Returns whether the weight is a vector of `width` numbers. Kernels read that many without a check; LibTorch refuses
// or broadcasts any other number.
bool IsVector(const Weight& weight, int64_t width) { return weight.rows == 1 && weight.columns == width; }

c10::IValue ConstantOf(const Module& module, const std::string& name) { return module.type()->getConstant(name); }

// Returns the matrix in the precision of the file.
absl::StatusOr<StoredMatrix> MatrixOf(const Module& module, const std::shared_ptr<const MappedFile>& file) {
  auto owner = std::make_shared<at::Tensor>(module.attr("weight").toTensor());
  StoredMatrix matrix;
  if (owner->scalar_type() == at::kBFloat16) {
    matrix.element = StoredElement::kBfloat16;
  } else if (owner->scalar_type() == at::kHalf) {
    matrix.element = StoredElement::kFloat16;
  } else if (owner->scalar_type() != at::kFloat) {
    return NoKernelFor(absl::StrCat("weights of ", at::toString(owner->scalar_type())));
  }
  if (owner->dim() != 2 || !owner->is_contiguous()) return NoKernelFor("weights that are not a plain matrix");
  matrix.data = static_cast<const std::byte*>(owner->const_data_ptr());
  matrix.rows = owner->size(0);
  matrix.columns = owner->size(1);
  matrix.owner = std::move(owner);
  matrix.file = file;
  return matrix;
}

float EpsilonOf(const Module& module) { return static_cast<float>(ConstantOf(module, "epsilon").toDouble()); }

std::optional<Activation> ActivationOf(const std::string& kind) {
  if (kind == "SwiGlu") return Activation::kSilu;
  if (kind == "GeGlu") return Activation::kGelu;
  if (kind == "GeGluTanh") return Activation::kGeluTanh;
  return std::nullopt;
}

// Lowers layers, one call of Lower per layer.
class LayerLowering {
 public:
  LayerLowering(Program& program, std::shared_ptr<const MappedFile> file) : program_(program), file_(std::move(file)) {}

  absl::StatusOr<Value> Lower(const Module& layer, Value hidden) {
    const absl::StatusOr<LayerCalls> read = ReadLayerCalls(layer);
    if (!read.ok()) return read.status();
    ops_.clear();
    values_.assign(read->values, std::nullopt);
    // The other arguments of forward() belong to the batch; kernels read them from it.
    values_[0] = hidden;
    for (const PartCall& call : read->calls) {
      RETURN_IF_ERROR(call.part.has_value() ? LowerPart(call) : LowerSum(call));
    }
    if (!values_[read->result].has_value()) return NoKernelFor("a layer whose result is not one known value");
    program_.layers.push_back(std::move(ops_));
    return *values_[read->result];
  }

 private:
  absl::Status LowerSum(const PartCall& call) {
    const std::optional<Value> a = values_[call.in[0]], b = values_[call.in[1]];
    if (!a.has_value() || !b.has_value()) return NoKernelFor("an addition of something unknown");
    if (program_.widths[*a] != program_.widths[*b]) return NoKernelFor("an addition of unequal widths");
    const Value out = NewValue(program_.widths[*a]);
    ops_.emplace_back(AddOp{.a = *a, .b = *b, .out = out});
    values_[call.out] = out;
    return absl::OkStatus();
  }

  absl::Status LowerPart(const PartCall& call) {
    const std::optional<Value> in = call.in.empty() ? std::nullopt : values_[call.in[0]];
    if (!in.has_value()) return NoKernelFor("a call with something unknown");
    const Module& module = *call.part;
    RETURN_IF_ERROR(CheckKnownPart(module));
    const std::string kind = ClassOf(module);
    absl::StatusOr<Value> out;
    if (kind == "Identity") {
      out = *in;
    } else if (kind == "Linear" || kind == "LinearGelu" || kind == "LinearNoBias") {
      out = LowerLinear(module, *in);
    } else if (const std::optional<Activation> activation = ActivationOf(kind); activation.has_value()) {
      out = LowerGate(*activation, *in);
      values_[call.in[0]].reset();  // The result before the gate no longer exists.
    } else if (kind == "ResidualNorm" || kind == "LayerNorm" || kind == "RmsNorm") {
      out = LowerNorm(call, *in);
    } else if (kind == "HeadNorm") {
      out = LowerHeadNorm(module, *in);
    } else {
      out = LowerAttention(call, *in);
    }
    if (!out.ok()) return out.status();
    values_[call.out] = *out;
    return absl::OkStatus();
  }

  absl::StatusOr<Value> LowerLinear(const Module& module, Value in) {
    const std::string kind = ClassOf(module);
    absl::StatusOr<StoredMatrix> matrix = MatrixOf(module, file_);
    if (!matrix.ok()) return matrix.status();
    LinearOp op{.in = in,
                .weight = *std::move(matrix),
                .activation = kind == "LinearGelu" ? Activation::kGelu : Activation::kNone};
    if (op.weight.columns != program_.widths[in]) return NoKernelFor("a linear layer of another width");
    if (kind != "LinearNoBias") {
      op.bias = WeightOf(module, "bias");
      if (!IsVector(op.bias, op.weight.rows)) return NoKernelFor("a linear layer with a bias of another width");
    }
    return Add(std::move(op), static_cast<int>(op.weight.rows));
  }

  // Lowers a gate. Gate and value come from one linear layer that nothing else reads, so that layer becomes gated.
  absl::StatusOr<Value> LowerGate(Activation activation, Value in) {
    auto* const product = ops_.empty() ? nullptr : std::get_if<LinearOp>(&ops_.back());
    if (product == nullptr || product->out != in || product->activation != Activation::kNone || product->gated ||
        product->weight.rows % 2 != 0) {
      return NoKernelFor("a gate over something other than a linear layer's result");
    }
    product->activation = activation;
    product->gated = true;
    return product->out = NewValue(program_.widths[in] / 2);
  }

  absl::StatusOr<Value> LowerNorm(const PartCall& call, Value in) {
    const Module& module = *call.part;
    const int width = program_.widths[in];
    Weight weight = WeightOf(module, "weight");
    if (!IsVector(weight, width)) return NoKernelFor("a norm of another width");
    if (ClassOf(module) == "RmsNorm") {
      return Add(RmsNormOp{.in = in, .weight = std::move(weight), .epsilon = EpsilonOf(module)}, width);
    }
    LayerNormOp op{
        .in = in, .weight = std::move(weight), .bias = WeightOf(module, "bias"), .epsilon = EpsilonOf(module)};
    if (!IsVector(op.bias, width)) return NoKernelFor("a norm with a bias of another width");
    if (ClassOf(module) == "ResidualNorm") {
      op.residual = call.in.size() < 2 ? std::nullopt : values_[call.in[1]];
      if (!op.residual.has_value() || program_.widths[*op.residual] != width) {
        return NoKernelFor("a norm of something unknown");
      }
    }
    return Add(std::move(op), width);
  }

  absl::StatusOr<Value> LowerHeadNorm(const Module& module, Value in) {
    HeadNormOp op{.in = in,
                  .heads = static_cast<int>(ConstantOf(module, "heads").toInt()),
                  .key_value_heads = static_cast<int>(ConstantOf(module, "key_value_heads").toInt()),
                  .query = WeightOf(module, "query"),
                  .key = WeightOf(module, "key"),
                  .epsilon = EpsilonOf(module)};
    const int width = program_.widths[in];
    if (op.query.columns != op.key.columns || (op.heads + 2 * op.key_value_heads) * op.query.columns != width) {
      return NoKernelFor("norms of heads that do not divide their width");
    }
    return Add(std::move(op), width);
  }

  absl::StatusOr<Value> LowerAttention(const PartCall& call, Value in) {
    const Module& module = *call.part;
    const std::string kind = ClassOf(module);
    const auto number = [&module](const char* name) { return static_cast<int>(ConstantOf(module, name).toInt()); };
    AttentionOp op{.in = in};
    if (call.attention.has_value() && call.attention->packed) {
      op.heads = static_cast<int>(call.attention->heads);
      op.key_value_heads = static_cast<int>(call.attention->key_value_heads);
      op.causal = call.attention->causal;
    } else if (kind == "LocalRotaryAttention") {
      op.heads = number("heads");
      op.key_value_heads = number("key_value_heads");
      op.local = LocalWindow{.reach = number("window"), .rotary_base = ConstantOf(module, "rotary_base").toDouble()};
    } else if (kind == "RelativeBiasAttention") {
      op.heads = op.key_value_heads = number("heads");
      op.relative_bias = WeightOf(module, "bias");
      if (op.relative_bias.rows != op.heads || op.relative_bias.columns != 2 * number("farthest") + 1) {
        return NoKernelFor("attention with biases of other heads or distances");
      }
    } else {
      return NoKernelFor(absl::StrCat("a part of class ", kind, " within a layer"));
    }
    const int width = program_.widths[in], head_columns = op.heads + 2 * op.key_value_heads;
    if (op.heads < 1 || op.key_value_heads < 1 || op.heads % op.key_value_heads != 0 || width % head_columns != 0) {
      return NoKernelFor("attention whose heads do not divide its width");
    }
    const int context = width / head_columns * op.heads;
    return Add(std::move(op), context);
  }

  template <typename T>
  Value Add(T op, int width) {
    op.out = NewValue(width);
    const Value out = op.out;
    ops_.emplace_back(std::move(op));
    return out;
  }

  Value NewValue(int width) {
    program_.widths.push_back(width);
    return static_cast<Value>(program_.widths.size()) - 1;
  }

  Program& program_;
  const std::shared_ptr<const MappedFile> file_;
  std::vector<Op> ops_;
  // Indexed by the layer's numbering; nullopt for values that no kernel reads.
  std::vector<std::optional<Value>> values_;
};

absl::Status LowerEmbeddings(const Module& embeddings, Program& program) {
  RETURN_IF_ERROR(CheckKnownPart(embeddings));
  const std::string kind = ClassOf(embeddings);
  program.word = WeightOf(embeddings, "word");
  if (kind == "Embeddings") {
    const Module norm = embeddings.attr("norm").toModule();
    if (ClassOf(norm) != "ResidualNorm") return NoKernelFor(absl::StrCat("embeddings with a ", ClassOf(norm)));
    program.position = WeightOf(embeddings, "position");
    program.embedding_norm_weight = WeightOf(norm, "weight");
    program.embedding_norm_bias = WeightOf(norm, "bias");
    program.embedding_norm_epsilon = EpsilonOf(norm);
  } else if (kind == "NormedWordEmbeddings") {
    program.embedding_norm_weight = WeightOf(embeddings, "weight");
    program.embedding_norm_bias = WeightOf(embeddings, "bias");
    program.embedding_norm_epsilon = EpsilonOf(embeddings);
  } else if (kind != "WordEmbeddings") {
    return NoKernelFor(absl::StrCat("embeddings of class ", kind));
  }
  const int64_t width = program.word.columns;
  if (program.position && program.position.columns != width) return NoKernelFor("positions of another width");
  for (const Weight& norm : {program.embedding_norm_weight, program.embedding_norm_bias}) {
    if (norm && !IsVector(norm, width)) return NoKernelFor("a norm of embeddings of another width");
  }
  program.widths.push_back(static_cast<int>(width));
  return absl::OkStatus();
}

absl::StatusOr<DenseLayer> LowerDense(const Module& dense, int64_t inputs) {
  const Module linear = dense.attr("linear").toModule(), activation = dense.attr("activation").toModule();
  for (const Module& part : {dense, linear, activation}) {
    RETURN_IF_ERROR(CheckKnownPart(part));
  }
  const std::string kind = ClassOf(linear), function = ClassOf(activation);
  if (kind != "Linear" && kind != "LinearNoBias") return NoKernelFor(absl::StrCat("a Dense layer of class ", kind));
  DenseLayer layer{.weight = WeightOf(linear, "weight")};
  if (layer.weight.columns != inputs) return NoKernelFor("a Dense layer of another width");
  if (kind == "Linear") {
    layer.bias = WeightOf(linear, "bias");
    if (!IsVector(layer.bias, layer.weight.rows)) return NoKernelFor("a Dense layer with a bias of another width");
  }
  if (function == "Tanh") {
    layer.activation = Activation::kTanh;
  } else if (function == "ReLU") {
    layer.activation = Activation::kRelu;
  } else if (function == "GELU") {
    layer.activation =
        ConstantOf(activation, "approximate").toStringRef() == "tanh" ? Activation::kGeluTanh : Activation::kGelu;
  } else if (function != "Identity") {
    return NoKernelFor(absl::StrCat("a Dense layer with ", function));
  }
  return layer;
}

absl::Status LowerPooling(const Module& pooling, Program& program) {
  RETURN_IF_ERROR(CheckKnownPart(pooling));
  const std::string kind = ClassOf(pooling);
  if (kind == "SpanMean") return absl::OkStatus();
  if (kind == "DensePooling") {
    RETURN_IF_ERROR(LowerPooling(pooling.attr("pooling").toModule(), program));
    int64_t width = program.widths[program.output];
    for (const Module& head : pooling.attr("heads").toModule().children()) {
      absl::StatusOr<DenseLayer> layer = LowerDense(head, width);
      if (!layer.ok()) return layer.status();
      width = layer->weight.rows;
      program.dense.push_back(*std::move(layer));
    }
    return absl::OkStatus();
  }
  if (kind != "NormedSpanMean") return NoKernelFor(absl::StrCat("pooling of class ", kind));
  const Module norm = pooling.attr("norm").toModule();
  RETURN_IF_ERROR(CheckKnownPart(norm));
  const std::string norm_kind = ClassOf(norm);
  if (norm_kind != "RmsNorm" && norm_kind != "LayerNorm") {
    return NoKernelFor(absl::StrCat("a last norm of class ", norm_kind));
  }
  program.final_norm = WeightOf(norm, "weight");
  if (norm_kind == "LayerNorm") program.final_norm_bias = WeightOf(norm, "bias");
  for (const Weight& weight : {program.final_norm, program.final_norm_bias}) {
    if (weight && !IsVector(weight, program.widths[program.output])) return NoKernelFor("a last norm of another width");
  }
  program.final_norm_epsilon = EpsilonOf(norm);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Program> LowerToProgram(const Module& module, const std::shared_ptr<const MappedFile>& file) {
  Program program;
  RETURN_IF_ERROR(LowerEmbeddings(module.attr("embeddings").toModule(), program));
  LayerLowering lowering(program, file);
  Value hidden = program.input;
  for (const Module& layer : module.attr("layers").toModule().children()) {
    absl::StatusOr<Value> out = lowering.Lower(layer, hidden);
    if (!out.ok()) return out.status();
    hidden = *out;
  }
  program.output = hidden;
  RETURN_IF_ERROR(LowerPooling(module.attr("pooling").toModule(), program));
  return program;
}

}  // namespace longembed
