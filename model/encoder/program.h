// A network as a straight list of operations over rows, one row a token: what the graph of a model directory is lowered
// to, so that kernels made for a processor can run it. Knows nothing of LibTorch.
//
// Values are numbered; each is written once. Within a layer everything but attention works on every row by itself.
#ifndef LONGEMBED_MODEL_ENCODER_PROGRAM_H_
#define LONGEMBED_MODEL_ENCODER_PROGRAM_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "model/encoder/activation.h"
#include "model/encoder/mapped_file.h"

namespace longembed {

// float32, row-major, `rows` x `columns` (a vector has one row). `owner` keeps the memory.
struct Weight {
  const float* data = nullptr;
  int64_t rows = 0;
  int64_t columns = 0;
  std::shared_ptr<const void> owner;

  explicit operator bool() const { return data != nullptr; }
};

enum class StoredElement : uint8_t { kFloat32, kBfloat16, kFloat16 };

constexpr ptrdiff_t SizeOf(StoredElement element) { return element == StoredElement::kFloat32 ? 4 : 2; }

// The matrix of a linear layer, as the model's file holds it: row-major, in the checkpoint's own precision, and often
// pages of the file.
struct StoredMatrix {
  const std::byte* data = nullptr;
  StoredElement element = StoredElement::kFloat32;
  int64_t rows = 0;
  int64_t columns = 0;
  std::shared_ptr<const void> owner;
  std::shared_ptr<const MappedFile> file;  // Null: the memory is not a file's.

  StoredMatrix() = default;
  StoredMatrix(const Weight& weight)  // NOLINT(google-explicit-constructor): the same matrix in float32.
      : data(reinterpret_cast<const std::byte*>(weight.data)),
        rows(weight.rows),
        columns(weight.columns),
        owner(weight.owner) {}

  ptrdiff_t row_bytes() const { return columns * SizeOf(element); }
  StoredMatrix Rows(int64_t first, int64_t last) const {
    StoredMatrix some = *this;
    some.data += first * row_bytes();
    some.rows = last - first;
    return some;
  }
};

using Value = int;

// out = activation(in W^T + bias). weight [outputs, inputs]; bias may be absent. Gated: weight and bias hold a gate and
// a value, each of half their rows, and out = activation(gate) * value.
struct LinearOp {
  Value in = 0, out = 0;
  StoredMatrix weight;
  Weight bias;
  Activation activation = Activation::kNone;
  bool gated = false;
};
// out = LayerNorm(in + residual), or of `in` alone.
struct LayerNormOp {
  Value in = 0;
  std::optional<Value> residual;
  Value out = 0;
  Weight weight, bias;
  float epsilon = 0;
};
struct RmsNormOp {
  Value in = 0, out = 0;
  Weight weight;
  float epsilon = 0;
};
struct AddOp {
  Value a = 0, b = 0, out = 0;
};
// RMS norms of single query and key heads, `query` and `key` [head_dim]; values stay. in, out: queries, keys, values
// side by side.
struct HeadNormOp {
  Value in = 0, out = 0;
  int heads = 0;
  int key_value_heads = 0;
  Weight query, key;
  float epsilon = 0;
};
// Attention to tokens at most `reach` away, by rotations of plain positions: theta_j = rotary_base^(-2j / head_dim). No
// context extension changes it: it reads neither the batch's rotations nor its scales and windows.
struct LocalWindow {
  int reach = 0;
  double rotary_base = 0;
};
// in: queries, keys, values side by side; out [heads * head_dim].
struct AttentionOp {
  Value in = 0, out = 0;
  int heads = 0;
  int key_value_heads = 0;
  bool causal = false;
  std::optional<LocalWindow> local;
  // [heads, 2 farthest + 1], added to scaled logits by how far the key is to the right of the query; the outermost
  // beyond `farthest`. May be absent.
  Weight relative_bias;
};
using Op = std::variant<LinearOp, LayerNormOp, RmsNormOp, AddOp, HeadNormOp, AttentionOp>;

// Calls visit(value) for each value that an operation reads; ResultOf gives the one that it writes.
template <typename Visit>
void ForInputs(const Op& op, const Visit& visit) {
  if (const auto* norm = std::get_if<LayerNormOp>(&op)) {
    visit(norm->in);
    if (norm->residual.has_value()) visit(*norm->residual);
  } else if (const auto* add = std::get_if<AddOp>(&op)) {
    visit(add->a);
    visit(add->b);
  } else {
    std::visit(
        [&](const auto& each) {
          if constexpr (requires { each.in; }) visit(each.in);
        },
        op);
  }
}
inline Value ResultOf(const Op& op) {
  return std::visit([](const auto& each) { return each.out; }, op);
}

// A layer over pooled vectors: activation(vector W^T + bias).
struct DenseLayer {
  Weight weight, bias;
  Activation activation = Activation::kNone;
};

struct Program {
  Weight word;      // [vocabulary, hidden]
  Weight position;  // [positions, hidden], read with interpolation; absent for rotary models.
  Weight embedding_norm_weight, embedding_norm_bias;  // Absent: no norm.
  float embedding_norm_epsilon = 0;
  std::vector<std::vector<Op>> layers;
  std::vector<int> widths;             // Columns, by value.
  Value input = 0;                     // Written by the embedding.
  Value output = 0;                    // Read by pooling.
  Weight final_norm, final_norm_bias;  // Before pooling: a layer norm where it has a bias, else an RMS norm; or none.
  float final_norm_epsilon = 0;
  std::vector<DenseLayer> dense;  // After pooling, one after the other.
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_PROGRAM_H_
