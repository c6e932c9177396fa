#include "model/encoder/cpu/attention_check.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/encoder/cpu/attention.h"
#include "system/return_if_error.h"

namespace longembed::cpu {
namespace {

class AttentionCheck {
 public:
  explicit AttentionCheck(const Program& program)
      : program_(program),
        readers_(program.widths.size(), 0),
        from_linear_(program.widths.size(), false),
        context_(program.widths.size(), false) {}

  absl::Status Check() {
    for (const std::vector<Op>& layer : program_.layers) {
      for (const Op& op : layer) {
        RETURN_IF_ERROR(CheckOp(op));
      }
    }
    for (const AttentionOp* attention : attentions_) {
      if (readers_[attention->in] != 1) return Refuse("queries, keys and values read twice");
    }
    return absl::OkStatus();
  }

 private:
  static absl::Status Refuse(const std::string& what) { return absl::UnimplementedError(what); }

  absl::Status CheckOp(const Op& op) {
    bool reads_context = false;
    ForInputs(op, [&](Value value) {
      ++readers_[value];
      reads_context = reads_context || context_[value];
    });
    const auto* linear = std::get_if<LinearOp>(&op);
    if (reads_context && linear == nullptr) return Refuse("a context that something other than a linear layer reads");
    if (linear != nullptr) from_linear_[linear->out] = true;
    if (const auto* norm = std::get_if<HeadNormOp>(&op)) from_linear_[norm->out] = from_linear_[norm->in];
    const auto* attention = std::get_if<AttentionOp>(&op);
    return attention == nullptr ? absl::OkStatus() : CheckAttention(*attention);
  }

  absl::Status CheckAttention(const AttentionOp& attention) {
    const int head_dim = program_.widths[attention.out] / attention.heads;
    if (head_dim > kMaxHeadDim) {
      return Refuse(absl::StrCat("heads of ", head_dim, " components; at most ", kMaxHeadDim));
    }
    if (attention.relative_bias.columns / 2 > kMaxBiasDistance) {
      return Refuse(absl::StrCat("a bias of ", attention.relative_bias.columns, " distances; at most ",
                                 2 * kMaxBiasDistance + 1));
    }
    if (!from_linear_[attention.in]) return Refuse("attention over something other than a linear layer's result");
    if (attention.local.has_value()) {
      const std::pair rotations(attention.local->rotary_base, head_dim);
      if (head_dim % 2 != 0 || local_rotations_.value_or(rotations) != rotations) {
        return Refuse("local layers that share no rotations");
      }
      local_rotations_ = rotations;
    }
    context_[attention.out] = true;
    attentions_.push_back(&attention);
    return absl::OkStatus();
  }

  const Program& program_;
  std::vector<int> readers_;
  std::vector<bool> from_linear_, context_;
  std::vector<const AttentionOp*> attentions_;
  std::optional<std::pair<double, int>> local_rotations_;  // Rotary base and head_dim.
};

}  // namespace

absl::Status CheckAttention(const Program& program) { return AttentionCheck(program).Check(); }

}  // namespace longembed::cpu
