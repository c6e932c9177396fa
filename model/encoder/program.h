// A network as a straight list of operations over rows, one row a token: what the graph of a model directory is lowered
// to, so that kernels made for a processor can run it. Knows nothing of LibTorch.
//
// Values are numbered; each is written once. Within a layer everything but attention works on every row by itself.
#ifndef LONGEMBED_MODEL_ENCODER_PROGRAM_H_
#define LONGEMBED_MODEL_ENCODER_PROGRAM_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <variant>
#include <vector>

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

inline constexpr ptrdiff_t SizeOf(StoredElement element) { return element == StoredElement::kFloat32 ? 4 : 2; }

// The matrix of a linear layer, as the model's file holds it: row-major, in the checkpoint's own precision, and often
// pages of the file.
struct StoredMatrix {
  const std::byte* data = nullptr;
  StoredElement element = StoredElement::kFloat32;
  int64_t rows = 0;
  int64_t columns = 0;
  std::shared_ptr<const void> owner;
  std::shared_ptr<const MappedFile> file;  // Null: the memory is no file's.

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

// out = in W^T + bias, through the exact GELU if so wished. weight [outputs, inputs]; bias may be absent.
struct LinearOp {
  Value in = 0, out = 0;
  StoredMatrix weight;
  Weight bias;
  bool gelu = false;
};
// out = LayerNorm(update + residual).
struct ResidualNormOp {
  Value update = 0, residual = 0, out = 0;
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
// in [2F] holds gate and value; out [F] = silu(gate) * value.
struct SwiGluOp {
  Value in = 0, out = 0;
};
// in: queries, keys, values side by side; out [heads * head_dim].
struct AttentionOp {
  Value in = 0, out = 0;
  int heads = 0;
  int key_value_heads = 0;
  bool causal = false;
};
using Op = std::variant<LinearOp, ResidualNormOp, RmsNormOp, AddOp, SwiGluOp, AttentionOp>;

// Calls visit(value) for each value that an operation reads; ResultOf gives the one that it writes.
template <typename Visit>
void ForInputs(const Op& op, const Visit& visit) {
  if (const auto* norm = std::get_if<ResidualNormOp>(&op)) {
    visit(norm->update);
    visit(norm->residual);
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

struct Program {
  Weight word;      // [vocabulary, hidden]
  Weight position;  // [positions, hidden], read with interpolation; absent for rotary models.
  Weight embedding_norm_weight, embedding_norm_bias;  // Absent: no norm.
  float embedding_norm_epsilon = 0;
  std::vector<std::vector<Op>> layers;
  std::vector<int> widths;  // Columns, by value.
  Value input = 0;          // What the embedding writes.
  Value output = 0;         // What is pooled.
  Weight final_norm;        // RMS norm before pooling; absent: none.
  float final_norm_epsilon = 0;
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_PROGRAM_H_
