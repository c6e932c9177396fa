// A Program prepared for execution: the places of values in memory, and the steps between attentions.
//
// Between two attentions, every operation processes rows independently. A chunk of rows therefore goes through all of
// these operations while its intermediate values are in a core's cache. Only values that an attention reads, or that
// are computed before an attention and used after it, are stored for the whole batch.
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

// The place of a value's rows.
struct BufferRef {
  bool whole_batch = false;  // If false, the rows are in the memory of a chunk.
  int slot = 0;              // Index into Schedule::batch_slots or chunk_slots.
  // Number of columns. The row in memory may be wider: a context is stored in place of the queries.
  int width = 0;
  Element element = Element::kFloat32;
};

struct LinearStep {
  BufferRef in, out;
  PackedWeights weights;
  std::optional<PackedWeights> gate;  // The result is (product with weights) * activation(product with gate).
  Activation activation = Activation::kNone;
  bool in_is_operand = false;  // The rows of `in` need no conversion to the operand.
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

// Row steps followed by an attention. The last segment has no attention.
struct Segment {
  std::vector<RowStep> steps;
  bool has_attention = false;
  BufferRef qkv;  // Also the place of the context.
  AttentionShape attention;
  Weight relative_bias;  // Owner of attention.relative_bias.
  bool local = false;    // Local attention, which has its own rotations.
};

// Calls visit(weights) for the weights of each linear layer of a segment.
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
  std::vector<ptrdiff_t> batch_slots;  // Bytes per row of each slot; multiples of 64.
  std::vector<ptrdiff_t> chunk_slots;
  ptrdiff_t operand_bytes = 0;  // Bytes of the widest row that a linear step converts to an operand.
  BufferRef input, output;
};

// Makes a schedule. Lays out the weights for `precision` and `kernels` without packing them.
Schedule MakeSchedule(std::vector<std::vector<Op>> layers, const std::vector<int>& widths, Value input, Value output,
                      Precision precision, const Kernels& kernels);

}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_SCHEDULE_H_
