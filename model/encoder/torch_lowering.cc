#include "model/encoder/torch_lowering.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/encoder/torch_graph.h"

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

// The matrix as the file holds it.
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
  if (owner->dim() != 2 || !owner->is_contiguous()) return NoKernelFor("weights that are no plain matrix");
  matrix.data = static_cast<const std::byte*>(owner->const_data_ptr());
  matrix.rows = owner->size(0);
  matrix.columns = owner->size(1);
  matrix.owner = std::move(owner);
  matrix.file = file;
  return matrix;
}

float EpsilonOf(const Module& module) { return static_cast<float>(module.type()->getConstant("epsilon").toDouble()); }

// Lowers the forward() of one layer after the other.
class LayerLowering {
 public:
  LayerLowering(Program& program, std::shared_ptr<const MappedFile> file) : program_(program), file_(std::move(file)) {}

  absl::StatusOr<Value> Lower(const Module& layer, Value hidden) {
    const absl::StatusOr<LayerCalls> read = ReadLayerCalls(layer);
    if (!read.ok()) return read.status();
    ops_.clear();
    values_.assign(read->values, std::nullopt);
    values_[0] = hidden;  // forward()'s other arguments are the batch's, which the kernels read from there.
    for (const PartCall& call : read->calls) {
      if (absl::Status status = call.part.has_value() ? LowerPart(call) : LowerSum(call); !status.ok()) return status;
    }
    if (!values_[read->result].has_value()) return NoKernelFor("a layer that returns something else");
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
    if (absl::Status status = CheckKnownPart(module); !status.ok()) return status;
    const std::string kind = ClassOf(module);
    const int width = program_.widths[*in];
    Value out = 0;
    if (kind == "Linear" || kind == "LinearGelu" || kind == "LinearNoBias") {
      absl::StatusOr<StoredMatrix> matrix = MatrixOf(module, file_);
      if (!matrix.ok()) return matrix.status();
      LinearOp op{.in = *in, .weight = *std::move(matrix), .gelu = kind == "LinearGelu"};
      if (op.weight.columns != width) return NoKernelFor("a linear layer of another width");
      if (kind != "LinearNoBias") op.bias = WeightOf(module, "bias");
      out = op.out = NewValue(static_cast<int>(op.weight.rows));
      ops_.emplace_back(std::move(op));
    } else if (kind == "ResidualNorm") {
      const std::optional<Value> residual = call.in.size() < 2 ? std::nullopt : values_[call.in[1]];
      if (!residual.has_value() || program_.widths[*residual] != width) {
        return NoKernelFor("a norm of something unknown");
      }
      out = NewValue(width);
      ops_.emplace_back(ResidualNormOp{.update = *in,
                                       .residual = *residual,
                                       .out = out,
                                       .weight = WeightOf(module, "weight"),
                                       .bias = WeightOf(module, "bias"),
                                       .epsilon = EpsilonOf(module)});
    } else if (kind == "RmsNorm") {
      out = NewValue(width);
      ops_.emplace_back(
          RmsNormOp{.in = *in, .out = out, .weight = WeightOf(module, "weight"), .epsilon = EpsilonOf(module)});
    } else if (kind == "SwiGlu") {
      out = NewValue(width / 2);
      ops_.emplace_back(SwiGluOp{.in = *in, .out = out});
    } else if (const std::optional<AttentionHeads>& heads = call.attention; heads.has_value()) {
      AttentionOp op{.in = *in,
                     .heads = static_cast<int>(heads->heads),
                     .key_value_heads = static_cast<int>(heads->key_value_heads),
                     .causal = heads->causal};
      if (op.heads < 1 || op.key_value_heads < 1 || op.heads % op.key_value_heads != 0 ||
          width % (op.heads + 2 * op.key_value_heads) != 0) {
        return NoKernelFor("attention whose heads do not divide its width");
      }
      out = op.out = NewValue(width / (op.heads + 2 * op.key_value_heads) * op.heads);
      ops_.emplace_back(op);
    } else {
      return NoKernelFor(absl::StrCat("a part of class ", kind));
    }
    values_[call.out] = out;
    return absl::OkStatus();
  }

  Value NewValue(int width) {
    program_.widths.push_back(width);
    return static_cast<Value>(program_.widths.size()) - 1;
  }

  Program& program_;
  const std::shared_ptr<const MappedFile> file_;
  std::vector<Op> ops_;
  std::vector<std::optional<Value>> values_;  // By the layer's numbering; nothing for those that no kernel reads.
};

absl::Status LowerEmbeddings(const Module& embeddings, Program& program) {
  if (absl::Status status = CheckKnownPart(embeddings); !status.ok()) return status;
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
  program.widths.push_back(static_cast<int>(program.word.columns));
  return absl::OkStatus();
}

absl::Status LowerPooling(const Module& pooling, Program& program) {
  if (absl::Status status = CheckKnownPart(pooling); !status.ok()) return status;
  const std::string kind = ClassOf(pooling);
  if (kind == "SpanMean") return absl::OkStatus();
  if (kind != "NormedSpanMean") return NoKernelFor(absl::StrCat("pooling of class ", kind));
  const Module norm = pooling.attr("norm").toModule();
  if (ClassOf(norm) != "RmsNorm") return NoKernelFor(absl::StrCat("a last norm of class ", ClassOf(norm)));
  program.final_norm = WeightOf(norm, "weight");
  program.final_norm_epsilon = EpsilonOf(norm);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Program> LowerToProgram(const Module& module, const std::shared_ptr<const MappedFile>& file) {
  Program program;
  if (absl::Status status = LowerEmbeddings(module.attr("embeddings").toModule(), program); !status.ok()) return status;
  LayerLowering lowering(program, file);
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
