// A network as a list of operations without control flow. Values are matrices with one row per token. The graph of a
// model directory is lowered to a Program so that kernels for a processor can run it. Independent of LibTorch.
//
// Values are numbered, and each is written once. Within a layer, every operation except attention processes each row
// independently.
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

// A float32 matrix, row-major [rows, columns]. A vector has one row. `owner` keeps the memory alive.
struct Weight {
  const float* data = nullptr;
  int64_t rows = 0;
  int64_t columns = 0;
  std::shared_ptr<const void> owner;

  explicit operator bool() const { return data != nullptr; }
};

enum class StoredElement : uint8_t { kFloat32, kBfloat16, kFloat16 };

constexpr ptrdiff_t SizeOf(StoredElement element) { return element == StoredElement::kFloat32 ? 4 : 2; }

// The matrix of a linear layer as stored in the model's file: row-major, in the checkpoint's precision, and often in
// mapped pages of the file.
struct StoredMatrix {
  const std::byte* data = nullptr;
  StoredElement element = StoredElement::kFloat32;
  int64_t rows = 0;
  int64_t columns = 0;
  std::shared_ptr<const void> owner;
  std::shared_ptr<const MappedFile> file;  // Null if the memory is not mapped from a file.

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

// out = activation(in W^T + bias), where W = `weight` is [outputs, inputs] and the bias may be absent. If gated, the
// first half of the rows of weight and bias gives a gate, the second half a value, and out = activation(gate) * value.
struct LinearOp {
  Value in = 0, out = 0;
  StoredMatrix weight;
  Weight bias;
  Activation activation = Activation::kNone;
  bool gated = false;
};
// out = LayerNorm(in + residual), or LayerNorm(in) without a residual.
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
// RMS norms of each query head and key head with the weights `query` and `key`, both [head_dim]. `in` and `out` are
// queries, keys and values side by side; the values are copied.
struct HeadNormOp {
  Value in = 0, out = 0;
  int heads = 0;
  int key_value_heads = 0;
  Weight query, key;
  float epsilon = 0;
};
// Local attention, to tokens at most `reach` away. It rotates by plain positions with theta_j = rotary_base^(-2j /
// head_dim). Context extensions do not apply: the batch's rotations, scales and windows are ignored.
struct LocalWindow {
  int reach = 0;
  double rotary_base = 0;
};
// Attention. `in` is queries, keys and values side by side; `out` has heads * head_dim columns.
struct AttentionOp {
  Value in = 0, out = 0;
  int heads = 0;
  int key_value_heads = 0;
  bool causal = false;
  std::optional<LocalWindow> local;
  // [heads, 2 max_distance + 1] Biases that are added to the scaled logits, indexed by the key's position minus the
  // query's. At larger distances than `max_distance`, the outermost bias applies. May be absent.
  Weight relative_bias;
};
using Op = std::variant<LinearOp, LayerNormOp, RmsNormOp, AddOp, HeadNormOp, AttentionOp>;

// Calls visit(value) for each value that an operation reads. ResultOf returns the value that it writes.
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

// A layer that is applied to pooled vectors: activation(vector W^T + bias).
struct DenseLayer {
  Weight weight, bias;
  Activation activation = Activation::kNone;
};

struct Program {
  Weight word;  // [vocabulary, hidden]
  // [positions, hidden], interpolated between rows. Absent for rotary models.
  Weight position;
  Weight embedding_norm_weight, embedding_norm_bias;  // Absent if there is no norm.
  float embedding_norm_epsilon = 0;
  std::vector<std::vector<Op>> layers;
  std::vector<int> widths;  // Number of columns of each value.
  Value input = 0;          // Value that the embedding writes.
  Value output = 0;         // Value that pooling reads.
  // Norm before pooling: a layer norm if it has a bias, else an RMS norm. May be absent.
  Weight final_norm, final_norm_bias;
  float final_norm_epsilon = 0;
  std::vector<DenseLayer> dense;  // Applied after pooling, in order.
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_PROGRAM_H_
