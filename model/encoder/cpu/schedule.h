// A Program laid out for running: which values lie where, and what happens between one attention and the next.
//
// Between two attentions every operation works on rows by themselves, so a chunk of rows goes through all of them while
// its intermediate values are in a core's cache. Only values that an attention reads, or that live across one, exist
// for the whole batch.
#ifndef LONGEMBED_MODEL_ENCODER_CPU_SCHEDULE_H_
#define LONGEMBED_MODEL_ENCODER_CPU_SCHEDULE_H_

#include <optional>
#include <variant>
#include <vector>

#include "model/encoder/cpu/attention.h"
#include "model/encoder/cpu/kernels.h"
#include "model/encoder/cpu/packed_weights.h"
#include "model/encoder/cpu/rows.h"
#include "model/encoder/program.h"

namespace longembed::cpu {

// Where the rows of a value are.
struct BufferRef {
  bool whole_batch = false;  // Else in a chunk's own memory.
  int slot = 0;              // Of Schedule::batch_slots or chunk_slots.
  int width = 0;             // Columns. The row itself may be wider: a context lies where the queries were.
  Element element = Element::kFloat32;
};

struct LinearStep {
  BufferRef in, out;
  PackedWeights weights;
  std::optional<PackedWeights> gate;  // The result is that of the weights times this one's, activated.
  Activation activation = Activation::kNone;
  bool in_is_operand = false;  // The rows of `in` are what the weights take; no conversion.
};
struct LayerNormStep {
  BufferRef in;
  std::optional<BufferRef> residual;
  BufferRef out;
  std::vector<float> weight, bias;
  float epsilon = 0;
};
struct RmsNormStep {
  BufferRef in, out;
  std::vector<float> weight;
  float epsilon = 0;
};
struct AddStep {
  BufferRef a, b, out;
};
struct HeadNormStep {
  BufferRef in, out;
  int heads = 0;
  int key_value_heads = 0;
  std::vector<float> query, key;
  float epsilon = 0;
};
using RowStep = std::variant<LinearStep, LayerNormStep, RmsNormStep, AddStep, HeadNormStep>;

// Row steps, then an attention; the last segment has none.
struct Segment {
  std::vector<RowStep> steps;
  bool has_attention = false;
  BufferRef qkv;  // And the context.
  AttentionShape attention;
  Weight relative_bias;  // Keeps that of the shape.
  bool local = false;    // By rotations of its own.
};

// Calls visit(weights) for each linear layer's weights of a segment.
template <typename Visit>
void ForWeights(Segment& segment, const Visit& visit) {
  for (RowStep& step : segment.steps) {
    auto* const linear = std::get_if<LinearStep>(&step);
    if (linear == nullptr) continue;
    visit(linear->weights);
    if (linear->gate.has_value()) visit(*linear->gate);
  }
}

struct Schedule {
  std::vector<Segment> segments;
  std::vector<ptrdiff_t> batch_slots;  // Bytes of a row of each slot; multiples of 64.
  std::vector<ptrdiff_t> chunk_slots;
  ptrdiff_t operand_bytes = 0;  // The widest row that a linear step converts to an operand.
  BufferRef input, output;
};

// Lays the weights out for `precision` and `kernels`, and packs none.
Schedule MakeSchedule(std::vector<std::vector<Op>> layers, const std::vector<int>& widths, Value input, Value output,
                      Precision precision, const Kernels& kernels);

}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_SCHEDULE_H_
