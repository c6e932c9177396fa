// Small programs with random weights, which are the same on every machine, and batches for them.
#ifndef LONGEMBED_TESTS_MODEL_ENCODER_CPU_PROGRAMS_H_
#define LONGEMBED_TESTS_MODEL_ENCODER_CPU_PROGRAMS_H_

#include <cmath>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "model/encoder/packed_batch.h"
#include "model/encoder/program.h"

namespace longembed {

class ProgramMaker {
 public:
  explicit ProgramMaker(uint32_t seed) : random_(seed) {}

  Weight Random(int rows, int columns, float scale, float mean = 0) {
    auto values = std::make_shared<std::vector<float>>(static_cast<size_t>(rows) * columns);
    std::normal_distribution<float> normal(mean, scale);
    for (float& value : *values) value = normal(random_);
    return {.data = values->data(), .rows = rows, .columns = columns, .owner = values};
  }
  Value NewValue(int width) {
    program.widths.push_back(width);
    return static_cast<Value>(program.widths.size()) - 1;
  }
  Value Linear(Value in, int outputs, Activation activation = Activation::kNone, bool bias = true) {
    const int inputs = program.widths[in];
    const Value out = NewValue(outputs);
    ops.emplace_back(LinearOp{.in = in,
                              .out = out,
                              .weight = Random(outputs, inputs, 1 / std::sqrt(static_cast<float>(inputs))),
                              .bias = bias ? Random(1, outputs, 0.1f) : Weight(),
                              .activation = activation});
    return out;
  }
  // Adds a gated layer: a gate and a value with `inner` outputs each.
  Value Gated(Value in, int inner, Activation activation, bool bias = false) {
    const int inputs = program.widths[in];
    const Value out = NewValue(inner);
    ops.emplace_back(LinearOp{.in = in,
                              .out = out,
                              .weight = Random(2 * inner, inputs, 1 / std::sqrt(static_cast<float>(inputs))),
                              .bias = bias ? Random(1, 2 * inner, 0.3f) : Weight(),
                              .activation = activation,
                              .gated = true});
    return out;
  }
  Value Attention(Value in, int heads, int kv_heads, int head_dim, bool causal) {
    return Attend({.in = in, .heads = heads, .key_value_heads = kv_heads, .causal = causal}, head_dim);
  }
  Value Attend(AttentionOp op, int head_dim) {
    const Value out = op.out = NewValue(op.heads * head_dim);
    ops.emplace_back(std::move(op));
    return out;
  }
  Value HeadNorm(Value in, int heads, int kv_heads, int head_dim) {
    const Value out = NewValue(program.widths[in]);
    ops.emplace_back(HeadNormOp{.in = in,
                                .out = out,
                                .heads = heads,
                                .key_value_heads = kv_heads,
                                .query = Random(1, head_dim, 0.3f, 1),
                                .key = Random(1, head_dim, 0.3f, 1),
                                .epsilon = 0.1f});
    return out;
  }
  Value Norm(Value in, std::optional<Value> residual = std::nullopt) {
    const int width = program.widths[in];
    const Value out = NewValue(width);
    ops.emplace_back(LayerNormOp{.in = in,
                                 .residual = residual,
                                 .out = out,
                                 .weight = Random(1, width, 0.1f, 1),
                                 .bias = Random(1, width, 0.1f),
                                 .epsilon = 1e-5f});
    return out;
  }
  Value Rms(Value in) {
    const Value out = NewValue(program.widths[in]);
    ops.emplace_back(
        RmsNormOp{.in = in, .out = out, .weight = Random(1, program.widths[in], 0.1f, 1), .epsilon = 1e-5f});
    return out;
  }
  Value Add(Value a, Value b) {
    const Value out = NewValue(program.widths[a]);
    ops.emplace_back(AddOp{.a = a, .b = b, .out = out});
    return out;
  }
  void EndLayer() { program.layers.push_back(std::move(ops)), ops.clear(); }

  Program program;
  std::vector<Op> ops;

 private:
  std::mt19937 random_;
};

// Returns a program like BERT: attention and feed-forward followed by norms, with absolute positions.
inline Program Encoder(int hidden, int heads, int head_dim, int inner, int layers) {
  ProgramMaker make(1);
  make.program.word = make.Random(50, hidden, 1);
  make.program.position = make.Random(64, hidden, 0.3f);
  make.program.embedding_norm_weight = make.Random(1, hidden, 0.1f, 1);
  make.program.embedding_norm_bias = make.Random(1, hidden, 0.1f);
  make.program.embedding_norm_epsilon = 1e-5f;
  Value hidden_value = make.program.input = make.NewValue(hidden);
  for (int layer = 0; layer < layers; ++layer) {
    const Value qkv = make.Linear(hidden_value, 3 * heads * head_dim);
    const Value context = make.Attention(qkv, heads, heads, head_dim, false);
    const Value middle = make.Norm(make.Linear(context, hidden), hidden_value);
    hidden_value = make.Norm(make.Linear(make.Linear(middle, inner, Activation::kGelu), hidden), middle);
    make.EndLayer();
  }
  make.program.output = hidden_value;
  return std::move(make.program);
}

// Returns a program like Llama: norms first, grouped queries, a gate, and a final norm.
inline Program Decoder(int hidden, int heads, int kv_heads, int head_dim, int inner, int layers) {
  ProgramMaker make(2);
  make.program.word = make.Random(50, hidden, 1);
  Value x = make.program.input = make.NewValue(hidden);
  for (int layer = 0; layer < layers; ++layer) {
    const Value qkv = make.Linear(make.Rms(x), (heads + 2 * kv_heads) * head_dim, Activation::kNone, false);
    const Value context = make.Attention(qkv, heads, kv_heads, head_dim, true);
    x = make.Add(x, make.Linear(context, hidden, Activation::kNone, false));
    const Value inside = make.Gated(make.Rms(x), inner, Activation::kSilu);
    x = make.Add(x, make.Linear(inside, hidden, Activation::kNone, false));
    make.EndLayer();
  }
  make.program.output = x;
  make.program.final_norm = make.Random(1, hidden, 0.1f, 1);
  make.program.final_norm_epsilon = 1e-5f;
  return std::move(make.program);
}

// Returns a program like ModernBERT: layer norms first, local windows between global layers, GeGLU, a final layer norm,
// and Dense layers.
inline Program LocalEncoder(int hidden, int heads, int head_dim, int inner, int reach) {
  ProgramMaker make(3);
  make.program.word = make.Random(50, hidden, 1);
  Value x = make.program.input = make.NewValue(hidden);
  for (int layer = 0; layer < 3; ++layer) {
    const Value qkv = make.Linear(layer == 0 ? x : make.Norm(x), 3 * heads * head_dim);
    AttentionOp attention{.in = qkv, .heads = heads, .key_value_heads = heads};
    if (layer != 1) attention.local = LocalWindow{.reach = reach, .rotary_base = 50};
    x = make.Add(x, make.Linear(make.Attend(attention, head_dim), hidden));
    x = make.Add(x, make.Linear(make.Gated(make.Norm(x), inner, Activation::kGelu), hidden));
    make.EndLayer();
  }
  make.program.output = x;
  make.program.final_norm = make.Random(1, hidden, 0.1f, 1);
  make.program.final_norm_bias = make.Random(1, hidden, 0.5f);
  make.program.final_norm_epsilon = 1e-5f;
  make.program.dense = {{make.Random(70, hidden, 0.3f), make.Random(1, 70, 0.3f), Activation::kTanh},
                        {make.Random(20, 70, 0.3f), {}, Activation::kNone}};
  return std::move(make.program);
}

// Returns a program like Gemma: norms before and after each part, norms of heads, a window, and GeGLU with tanh and
// biases.
inline Program SandwichEncoder(int hidden, int heads, int kv_heads, int head_dim, int inner) {
  ProgramMaker make(4);
  make.program.word = make.Random(50, hidden, 1);
  Value x = make.program.input = make.NewValue(hidden);
  for (int layer = 0; layer < 2; ++layer) {
    const Value qkv = make.Linear(make.Rms(x), (heads + 2 * kv_heads) * head_dim);
    AttentionOp attention{
        .in = make.HeadNorm(qkv, heads, kv_heads, head_dim), .heads = heads, .key_value_heads = kv_heads};
    if (layer == 0) attention.local = LocalWindow{.reach = 4, .rotary_base = 100};
    x = make.Add(x, make.Rms(make.Linear(make.Attend(attention, head_dim), hidden)));
    x = make.Add(x, make.Rms(make.Linear(make.Gated(make.Rms(x), inner, Activation::kGeluTanh, true), hidden)));
    make.EndLayer();
  }
  make.program.output = x;
  return std::move(make.program);
}

// Returns a program like MPNet, with biases by distance.
inline Program BiasedEncoder(int hidden, int heads, int max_distance) {
  ProgramMaker make(5);
  make.program.word = make.Random(50, hidden, 1);
  Value x = make.program.input = make.NewValue(hidden);
  for (int layer = 0; layer < 2; ++layer) {
    const Value qkv = make.Linear(x, 3 * hidden);
    const AttentionOp attention{.in = qkv,
                                .heads = heads,
                                .key_value_heads = heads,
                                .relative_bias = make.Random(heads, 2 * max_distance + 1, 2)};
    x = make.Norm(make.Linear(make.Attend(attention, hidden / heads), hidden), x);
    make.EndLayer();
  }
  make.program.output = x;
  return std::move(make.program);
}

inline double Activated(Activation activation, double x) {
  switch (activation) {
    case Activation::kGelu:
      return x / 2 * (1 + std::erf(x / std::sqrt(2.0)));
    case Activation::kGeluTanh:
      return x / 2 * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    case Activation::kTanh:
      return std::tanh(x);
    default:
      return x;
  }
}

inline PackedBatch Batch(const std::vector<int>& lengths, const std::vector<Range>& spans) {
  PackedBatch batch;
  batch.sequence_offsets.push_back(0);
  std::mt19937 random(5);
  for (const int length : lengths) {
    for (int i = 0; i < length; ++i) {
      batch.tokens.push_back(static_cast<int32_t>(random() % 50));
      batch.positions.push_back(static_cast<float>(i));
    }
    batch.query_scale.push_back(lengths.size() > 1 && length == lengths[1] ? 1.3f : 1.0f);
    batch.neighbor_window.push_back(0);
    batch.sequence_offsets.push_back(batch.sequence_offsets.back() + length);
  }
  batch.spans = spans;
  return batch;
}

}  // namespace longembed

#endif  // LONGEMBED_TESTS_MODEL_ENCODER_CPU_PROGRAMS_H_
