// A Program laid out for running: which values lie where, and what happens between one attention and the next.
//
// Between two attentions every operation works on rows by themselves, so a chunk of rows goes through all of them while
// its intermediate values are in a core's cache. Only values that an attention reads, or that live across one, exist
// for the whole batch.
#ifndef LONGEMBED_MODEL_ENCODER_CPU_SCHEDULE_H_
#define LONGEMBED_MODEL_ENCODER_CPU_SCHEDULE_H_

#include <variant>
#include <vector>

#include "model/encoder/cpu/attention.h"
#include "model/encoder/cpu/packed_weights.h"
#include "model/encoder/cpu/rows.h"
#include "model/encoder/program.h"

namespace longembed::cpu {

// Where the rows of a value are.
struct Place {
  bool whole_batch = false;  // Else in a chunk's own memory.
  int slot = 0;              // Of Schedule::batch_slots or chunk_slots.
  int width = 0;             // Columns. The row itself may be wider: a context lies where the queries were.
  Element element = Element::kFloat32;
};

struct LinearStep {
  Place in, out;
  PackedWeights weights;
  bool gelu = false;
  bool in_is_operand = false;  // The rows of `in` are what the weights take; no conversion.
};
struct LayerNormStep {
  Place update, residual, out;
  std::vector<float> weight, bias;
  float epsilon = 0;
};
struct RmsNormStep {
  Place in, out;
  std::vector<float> weight;
  float epsilon = 0;
};
struct AddStep {
  Place a, b, out;
};
struct SwiGluStep {
  Place in, out;
};
using RowStep = std::variant<LinearStep, LayerNormStep, RmsNormStep, AddStep, SwiGluStep>;

// Row steps, then an attention; the last segment has none.
struct Segment {
  std::vector<RowStep> steps;
  bool has_attention = false;
  Place qkv;  // And the context.
  AttentionShape attention;
};

// Calls visit(weights) for each linear layer's weights of a segment.
template <typename Visit>
void ForWeights(Segment& segment, const Visit& visit) {
  for (RowStep& step : segment.steps) {
    if (auto* const linear = std::get_if<LinearStep>(&step)) visit(linear->weights);
  }
}

struct Schedule {
  std::vector<Segment> segments;
  std::vector<ptrdiff_t> batch_slots;  // Bytes of a row of each slot; multiples of 64.
  std::vector<ptrdiff_t> chunk_slots;
  ptrdiff_t operand_bytes = 0;  // The widest row that a linear step converts to an operand.
  Place input, output;
};

// Lays the weights out for `precision` and packs none. `attention_element` is what queries, keys and values are kept
// and multiplied in.
Schedule MakeSchedule(std::vector<std::vector<Op>> layers, const std::vector<int>& widths, Value input, Value output,
                      Precision precision, Element attention_element);

}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_SCHEDULE_H_
