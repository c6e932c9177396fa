#include "model/encoder/cpu/schedule.h"

#include <algorithm>
#include <utility>

namespace longembed::cpu {
namespace {

// The lifetime and the uses of a value.
struct Lifetime {
  int last_use = -1;
  int first_segment = 0;
  int last_segment = 0;
  bool for_linear_only = true;  // Only linear layers read it.
  bool for_attention = false;
  bool from_norm_or_add = false;  // Written by a norm or an addition, which write float32.
};

// Memory slots for rows. When a value is no longer needed, the next one of equal width reuses its slot.
class Slots {
 public:
  int Take(ptrdiff_t row_bytes) {
    for (size_t i = 0; i < bytes_.size(); ++i) {
      if (free_[i] && bytes_[i] == row_bytes) {
        free_[i] = false;
        return static_cast<int>(i);
      }
    }
    bytes_.push_back(row_bytes);
    free_.push_back(false);
    return static_cast<int>(bytes_.size()) - 1;
  }
  void Release(int slot) { free_[slot] = true; }
  const std::vector<ptrdiff_t>& bytes() const { return bytes_; }

 private:
  std::vector<ptrdiff_t> bytes_;
  std::vector<bool> free_;
};

std::vector<float> ToVector(const Weight& weight) {
  return std::vector<float>(weight.data, weight.data + weight.rows * weight.columns);
}

class ScheduleMaker {
 public:
  ScheduleMaker(const std::vector<int>& widths, Precision precision, const Kernels& kernels)
      : widths_(widths),
        precision_(precision),
        kernels_(kernels),
        attention_element_(precision == Precision::kFloat32 ? Element::kFloat32 : kernels.attention_element),
        lifetimes_(widths.size()),
        places_(widths.size()) {}

  Schedule Make(std::vector<Op> ops, Value input, Value output) {
    FindLives(ops, input, output);
    schedule_.segments.emplace_back();
    places_[input] = NewPlace(input);
    schedule_.input = places_[input];
    for (size_t i = 0; i < ops.size(); ++i) {
      Add(ops[i], static_cast<int>(i));
      ops[i] = AddOp{};  // Releases the weights of the operation.
    }
    schedule_.output = places_[output];
    schedule_.batch_slots = batch_slots_.bytes();
    schedule_.chunk_slots = chunk_slots_.bytes();
    return std::move(schedule_);
  }

 private:
  void FindLives(const std::vector<Op>& ops, Value input, Value output) {
    lifetimes_[input].from_norm_or_add = true;
    lifetimes_[input].first_segment = -1;  // The embedding writes the input for the whole batch.
    int segment = 0;
    for (size_t i = 0; i < ops.size(); ++i) {
      const bool attention = std::holds_alternative<AttentionOp>(ops[i]);
      const bool linear = std::holds_alternative<LinearOp>(ops[i]);
      const bool writes_float32 = !linear && !attention;
      ForInputs(ops[i], [&](Value value) {
        Lifetime& life = lifetimes_[value];
        life.last_use = static_cast<int>(i);
        life.for_linear_only &= linear;
        life.for_attention |= attention;
        life.last_segment = segment + (attention ? 1 : 0);
      });
      Lifetime& result = lifetimes_[ResultOf(ops[i])];
      result.from_norm_or_add = writes_float32;
      result.first_segment = result.last_segment = segment + (attention ? 1 : 0);
      if (attention) ++segment;
    }
    lifetimes_[output].last_use = static_cast<int>(ops.size());
    lifetimes_[output].last_segment = segment + 1;
    lifetimes_[output].for_linear_only = false;
  }

  BufferRef NewPlace(Value value) {
    const Lifetime& life = lifetimes_[value];
    const bool operand =
        life.for_linear_only && !life.from_norm_or_add && precision_ == Precision::kBfloat16 && kernels_.bfloat16_rows;
    BufferRef place{.whole_batch = life.first_segment != life.last_segment,
                    .width = widths_[value],
                    .element = life.for_attention ? attention_element_
                               : operand          ? Element::kBfloat16
                                                  : Element::kFloat32};
    const ptrdiff_t bytes = (place.width * SizeOf(place.element) + 63) / 64 * 64;
    place.slot = (place.whole_batch ? batch_slots_ : chunk_slots_).Take(bytes);
    return place;
  }

  // Releases the slot of an input that no later operation reads.
  void Release(Value value, int op) {
    if (lifetimes_[value].last_use != op) return;
    (places_[value].whole_batch ? batch_slots_ : chunk_slots_).Release(places_[value].slot);
  }

  void Add(Op& op, int index) {
    if (const auto* attention = std::get_if<AttentionOp>(&op)) return AddAttention(*attention);
    // A linear layer reads all columns of a row for each column that it writes. Other operations write a column only
    // after reading it, so their result may reuse the slot of an input.
    const bool in_place = !std::holds_alternative<LinearOp>(op);
    const auto release = [&](Value value) { Release(value, index); };
    if (in_place) ForInputs(op, release);
    places_[ResultOf(op)] = NewPlace(ResultOf(op));
    if (!in_place) ForInputs(op, release);
    schedule_.segments.back().steps.push_back(std::visit([this](auto& each) { return ToStep(each); }, op));
  }

  void AddAttention(const AttentionOp& op) {
    Segment& segment = schedule_.segments.back();
    const int head_columns = op.heads + 2 * op.key_value_heads;
    segment.has_attention = true;
    segment.qkv = places_[op.in];
    segment.attention = {.heads = op.heads,
                         .key_value_heads = op.key_value_heads,
                         .head_dim = widths_[op.in] / head_columns,
                         .causal = op.causal};
    segment.local = op.local.has_value();
    if (segment.local) segment.attention.reach = op.local->reach;
    segment.relative_bias = op.relative_bias;
    segment.attention.relative_bias = op.relative_bias.data;
    segment.attention.max_distance = static_cast<int>(op.relative_bias.columns / 2);
    places_[op.out] = places_[op.in];
    places_[op.out].width = widths_[op.out];
    schedule_.segments.emplace_back();
  }

  RowStep ToStep(LinearOp& op) {
    LinearStep step{.in = places_[op.in], .out = places_[op.out], .activation = op.activation};
    const int64_t outputs = op.weight.rows;
    step.weights = LayOut(op, op.gated ? outputs / 2 : 0, outputs);
    if (op.gated) step.gate = LayOut(op, 0, outputs / 2);
    const Precision operand = step.weights.operand;
    step.in_is_operand = (operand == Precision::kFloat32 && step.in.element == Element::kFloat32) ||
                         (operand == Precision::kBfloat16 && step.in.element == Element::kBfloat16 &&
                          step.weights.inputs % StepInputs(operand) == 0);
    if (!step.in_is_operand) {
      const ptrdiff_t bytes = RoundUp(step.weights.steps * kStepBytes, 64);
      schedule_.operand_bytes = std::max(schedule_.operand_bytes, bytes);
    }
    return step;
  }
  // Lays out the outputs [first, last) of the layer.
  PackedWeights LayOut(const LinearOp& op, int64_t first, int64_t last) const {
    return LayOutWeights(kernels_, precision_, op.weight.Rows(first, last), op.bias ? op.bias.data + first : nullptr);
  }
  RowStep ToStep(LayerNormOp& op) {
    LayerNormStep step{.in = places_[op.in],
                       .out = places_[op.out],
                       .weight = ToVector(op.weight),
                       .bias = ToVector(op.bias),
                       .epsilon = op.epsilon};
    if (op.residual.has_value()) step.residual = places_[*op.residual];
    return step;
  }
  RowStep ToStep(RmsNormOp& op) {
    return RmsNormStep{
        .in = places_[op.in], .out = places_[op.out], .weight = ToVector(op.weight), .epsilon = op.epsilon};
  }
  RowStep ToStep(AddOp& op) { return AddStep{.a = places_[op.a], .b = places_[op.b], .out = places_[op.out]}; }
  RowStep ToStep(HeadNormOp& op) {
    return HeadNormStep{.in = places_[op.in],
                        .out = places_[op.out],
                        .heads = op.heads,
                        .key_value_heads = op.key_value_heads,
                        .query = ToVector(op.query),
                        .key = ToVector(op.key),
                        .epsilon = op.epsilon};
  }
  RowStep ToStep(AttentionOp&) { return AddStep{}; }  // Never called, because Add passes attentions to AddAttention.

  const std::vector<int>& widths_;
  const Precision precision_;
  const Kernels& kernels_;
  const Element attention_element_;
  std::vector<Lifetime> lifetimes_;
  std::vector<BufferRef> places_;
  Slots batch_slots_, chunk_slots_;
  Schedule schedule_;
};

}  // namespace

Schedule MakeSchedule(std::vector<std::vector<Op>> layers, const std::vector<int>& widths, Value input, Value output,
                      Precision precision, const Kernels& kernels) {
  std::vector<Op> ops;
  for (std::vector<Op>& layer : layers) {
    std::move(layer.begin(), layer.end(), std::back_inserter(ops));
  }
  layers.clear();
  return ScheduleMaker(widths, precision, kernels).Make(std::move(ops), input, output);
}

}  // namespace longembed::cpu
