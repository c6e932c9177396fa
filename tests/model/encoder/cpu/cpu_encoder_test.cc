// Compares whole programs of odd shapes, scheduled and run by our kernels, with a slow interpreter in double precision
// that keeps every value of every row.
#include "model/encoder/cpu/cpu_encoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <complex>
#include <functional>
#include <limits>
#include <map>
#include <numbers>
#include <optional>
#include <random>
#include <thread>
#include <tuple>
#include <utility>

#include "model/encoder/cpu/packed_weights.h"
#include "tests/model/encoder/cpu/each_kernel_set.h"
#include "tests/model/encoder/cpu/programs.h"

namespace longembed {
namespace {

using Matrix = std::vector<std::vector<double>>;  // Indexed as [row][column].

class Interpreter {
 public:
  Interpreter(const Program& program, const PackedBatch& batch) : program_(program), batch_(batch) {}

  Matrix Pooled() {
    values_[program_.input] = Embed();
    for (const auto& layer : program_.layers) {
      for (const Op& op : layer) std::visit([this](const auto& each) { values_[each.out] = Run(each); }, op);
      ++layer_;
    }
    Matrix rows = values_[program_.output];
    for (auto& row : rows) {
      if (program_.final_norm_bias) {
        row = LayerNorm(row, program_.final_norm, program_.final_norm_bias, program_.final_norm_epsilon);
      } else if (program_.final_norm) {
        row = Rms(row, program_.final_norm, program_.final_norm_epsilon);
      }
    }
    Matrix pooled;
    for (const Range span : batch_.spans) {
      std::vector<double> mean(rows[0].size(), 0);
      for (int r = span.start; r < span.end; ++r) {
        for (size_t j = 0; j < mean.size(); ++j) mean[j] += rows[r][j] / span.size();
      }
      pooled.push_back(std::move(mean));
    }
    for (const DenseLayer& layer : program_.dense) {
      pooled = Products(pooled, layer.weight, layer.bias);
      for (auto& row : pooled) {
        for (double& x : row) x = Activated(layer.activation, x);
      }
    }
    return pooled;
  }

 private:
  static double At(const Weight& w, int64_t row, int64_t column) { return w.data[row * w.columns + column]; }
  static double At(const StoredMatrix& w, int64_t row, int64_t column) {
    return reinterpret_cast<const float*>(w.data)[row * w.columns + column];
  }

  static std::vector<double> LayerNorm(std::vector<double> row, const Weight& weight, const Weight& bias,
                                       double epsilon) {
    double mean = 0, variance = 0;
    for (const double x : row) mean += x / static_cast<double>(row.size());
    for (const double x : row) variance += (x - mean) * (x - mean) / static_cast<double>(row.size());
    for (size_t j = 0; j < row.size(); ++j) {
      row[j] = (row[j] - mean) / std::sqrt(variance + epsilon) * weight.data[j] + bias.data[j];
    }
    return row;
  }
  static std::vector<double> Rms(std::vector<double> row, const Weight& weight, double epsilon) {
    double squares = 0;
    for (const double x : row) squares += x * x / static_cast<double>(row.size());
    for (size_t j = 0; j < row.size(); ++j) row[j] = row[j] / std::sqrt(squares + epsilon) * weight.data[j];
    return row;
  }

  Matrix Embed() const {
    Matrix rows;
    for (size_t t = 0; t < batch_.tokens.size(); ++t) {
      std::vector<double> row;
      for (int64_t j = 0; j < program_.word.columns; ++j) {
        double x = At(program_.word, batch_.tokens[t], j);
        if (program_.position) x += At(program_.position, static_cast<int64_t>(batch_.positions[t]), j);
        row.push_back(x);
      }
      if (program_.embedding_norm_weight) {
        row = LayerNorm(row, program_.embedding_norm_weight, program_.embedding_norm_bias,
                        program_.embedding_norm_epsilon);
      }
      rows.push_back(std::move(row));
    }
    return rows;
  }

  static Matrix Products(const Matrix& in, const StoredMatrix& weight, const Weight& bias) {
    Matrix out;
    for (const auto& row : in) {
      std::vector<double> y;
      for (int64_t o = 0; o < weight.rows; ++o) {
        double sum = bias ? bias.data[o] : 0;
        for (int64_t i = 0; i < weight.columns; ++i) sum += row[i] * At(weight, o, i);
        y.push_back(sum);
      }
      out.push_back(std::move(y));
    }
    return out;
  }

  Matrix Run(const LinearOp& op) {
    Matrix out = Products(values_[op.in], op.weight, op.bias);
    for (auto& row : out) {
      const size_t outputs = op.gated ? row.size() / 2 : row.size();
      for (size_t j = 0; j < outputs; ++j)
        row[j] = Activated(op.activation, row[j]) * (op.gated ? row[outputs + j] : 1);
      row.resize(outputs);
    }
    return out;
  }
  Matrix Run(const LayerNormOp& op) {
    Matrix out = op.residual.has_value() ? Run(AddOp{.a = op.in, .b = *op.residual}) : values_[op.in];
    for (auto& row : out) row = LayerNorm(row, op.weight, op.bias, op.epsilon);
    return out;
  }
  Matrix Run(const HeadNormOp& op) {
    Matrix out = values_[op.in];
    const auto d = static_cast<size_t>(op.query.columns);
    for (auto& row : out) {
      for (int head = 0; head < op.heads + op.key_value_heads; ++head) {
        const auto first = row.begin() + static_cast<ptrdiff_t>(head * d);
        const auto normed = Rms(std::vector<double>(first, first + static_cast<ptrdiff_t>(d)),
                                head < op.heads ? op.query : op.key, op.epsilon);
        std::ranges::copy(normed, first);
      }
    }
    return out;
  }
  Matrix Run(const RmsNormOp& op) {
    Matrix out = values_[op.in];
    for (auto& row : out) row = Rms(row, op.weight, op.epsilon);
    return out;
  }
  Matrix Run(const AddOp& op) {
    Matrix out = values_[op.a];
    for (size_t r = 0; r < out.size(); ++r) {
      for (size_t j = 0; j < out[r].size(); ++j) out[r][j] += values_[op.b][r][j];
    }
    return out;
  }
  Matrix Run(const AttentionOp& op) {
    const Matrix& qkv = values_[op.in];
    const int d = program_.widths[op.out] / op.heads;
    Matrix out(qkv.size(), std::vector<double>(program_.widths[op.out], 0));
    for (size_t s = 0; s + 1 < batch_.sequence_offsets.size(); ++s) {
      for (int i = batch_.sequence_offsets[s]; i < batch_.sequence_offsets[s + 1]; ++i) {
        for (int h = 0; h < op.heads; ++h) {
          const int kv = h / (op.heads / op.key_value_heads);
          const int key = (op.heads + kv) * d, value = (op.heads + op.key_value_heads + kv) * d;
          std::map<int, double> weights;
          for (int j = batch_.sequence_offsets[s]; j < (op.causal ? i + 1 : batch_.sequence_offsets[s + 1]); ++j) {
            if (op.local.has_value() && std::abs(i - j) > op.local->reach) continue;
            weights[j] = std::exp(Logit(op, qkv, i, j, h * d, key) * (op.local ? 1 : batch_.query_scale[s]) +
                                  Bias(op, h, j - i));
          }
          double total = 0;
          for (const auto& [j, weight] : weights) total += weight;
          for (auto& [j, weight] : weights) weight /= total;
          if (!op.local && !batch_.calibration.empty())
            Calibrate(batch_.calibration[s], batch_.sequence_offsets[s], i, weights);
          for (const auto& [j, weight] : weights) {
            for (int c = 0; c < d; ++c) out[i][h * d + c] += weight * qkv[j][value + c];
          }
        }
      }
    }
    return out;
  }

  // Calibrates the weights of token i of the batch, in a sequence that starts at `start`.
  void Calibrate(const SequenceCalibration& calibration, int start, int i, std::map<int, double>& weights) const {
    const bool row = calibration.rows.start <= i - start && i - start < calibration.rows.end;
    if (calibration.basket == 0 || layer_ < calibration.first_layer || !row) return;
    std::map<int, double> baskets;
    double rest = 0;
    for (const auto& [j, weight] : weights) {
      if (j - start == calibration.apart) continue;
      baskets[(j - start) / calibration.basket] += weight;
      rest += weight;
    }
    for (auto& [j, weight] : weights) {
      if (j - start == calibration.apart) continue;
      const double part = rest / static_cast<double>(baskets.size()) / baskets[(j - start) / calibration.basket];
      weight *= 1 - calibration.strength + calibration.strength * part;
    }
  }

  // Returns the logit of a pair. In local layers the pairs of components rotate by the distance. The programs' other
  // layers have no rotations.
  double Logit(const AttentionOp& op, const Matrix& qkv, int i, int j, int query, int key) const {
    const int d = program_.widths[op.out] / op.heads;
    double logit = 0;
    for (int c = 0; c < d / 2; ++c) {
      const std::complex<double> q(qkv[i][query + c], qkv[i][query + d / 2 + c]);
      const std::complex<double> k(qkv[j][key + c], qkv[j][key + d / 2 + c]);
      const double turn = op.local ? (i - j) * std::pow(op.local->rotary_base, -2.0 * c / d) : 0;
      logit += (q * std::conj(k) * std::polar(1.0, turn)).real();
    }
    if (d % 2 == 1) logit += qkv[i][query + d - 1] * qkv[j][key + d - 1];
    return logit / std::sqrt(d);
  }
  static double Bias(const AttentionOp& op, int head, int distance) {
    const auto max_distance = static_cast<int>(op.relative_bias.columns / 2);
    return op.relative_bias
               ? At(op.relative_bias, head, std::clamp(distance, -max_distance, max_distance) + max_distance)
               : 0;
  }

  const Program& program_;
  const PackedBatch& batch_;
  int layer_ = 0;
  std::map<Value, Matrix> values_;
};

struct Case {
  const char* name;
  std::function<Program()> program;
};

class CpuEncoderTest : public ::testing::TestWithParam<Case> {
 protected:
  // Returns the lowest cosine over the vectors of a batch. All helpers take part.
  double LeastCosine(const cpu::Kernels& kernels, Precision precision, const PackedBatch& batch, const Matrix& expected,
                     int helpers) {
    const auto encoder = MakeCpuEncoder(GetParam().program(), precision, kernels);
    EXPECT_TRUE(encoder.ok()) << encoder.status();
    Team team;
    const HelperThreads threads(team, helpers);
    Team::Leader leader(team);
    while (leader.threads() <= helpers) std::this_thread::yield();
    const auto block = (*encoder)->Encode(batch, leader, [] { return false; });
    EXPECT_TRUE(block.ok()) << block.status();
    double least = 1;
    for (size_t r = 0; r < expected.size(); ++r) {
      double dot = 0, a = 0, b = 0;
      for (size_t j = 0; j < expected[r].size(); ++j) {
        const double x = expected[r][j], y = block->row(static_cast<int>(r))[j];
        dot += x * y, a += x * x, b += y * y;
      }
      least = std::min(least, dot / std::sqrt(a * b));
    }
    return least;
  }
  static Matrix Expected(const PackedBatch& batch) {
    const Program program = GetParam().program();
    return Interpreter(program, batch).Pooled();
  }
};

TEST_P(CpuEncoderTest, EqualsAnInterpreterOfTheProgram) {
  const std::vector<int> lengths{7, 1, 30, 12, 3, 12};
  const PackedBatch whole = Batch(lengths, {{0, 7}, {7, 8}, {8, 38}, {38, 50}, {50, 53}, {53, 65}});
  const PackedBatch single = Batch(lengths, {{0, 1}, {7, 8}, {37, 38}, {38, 39}, {52, 53}, {53, 54}});
  const PackedBatch overlapping = Batch(lengths, {{10, 20}, {9, 12}, {15, 30}, {38, 50}, {40, 41}});
  const Matrix of_whole = Expected(whole);
  const Matrix of_single = Expected(single);
  const Matrix of_overlapping = Expected(overlapping);
  cpu::ForEachKernelSet([&](const cpu::Kernels& kernels) {
    for (const auto& [precision, least] : {std::pair(Precision::kFloat32, 0.9999999),
                                           std::pair(Precision::kBfloat16, 0.998), std::pair(Precision::kInt8, 0.99)}) {
      for (const int helpers : {0, 1, 12}) {
        EXPECT_GE(LeastCosine(kernels, precision, whole, of_whole, helpers), least) << PrecisionName(precision);
        EXPECT_GE(LeastCosine(kernels, precision, single, of_single, helpers), least) << PrecisionName(precision);
        EXPECT_GE(LeastCosine(kernels, precision, overlapping, of_overlapping, helpers), least)
            << PrecisionName(precision);
      }
    }
  });
}

TEST_P(CpuEncoderTest, SequencesAreCalibratedEachByItself) {
  const std::vector<int> lengths{7, 1, 60, 12, 3, 12};
  PackedBatch batch = Batch(lengths, {{0, 1}, {7, 8}, {8, 68}, {79, 80}, {80, 83}, {83, 95}});
  batch.calibration = {{.basket = 2, .strength = 1, .first_layer = 1, .apart = 0, .rows = {0, 1}},
                       {.basket = 1, .strength = 0.5f, .rows = {0, 1}},
                       {.basket = 7, .strength = 0.7f, .rows = {0, 60}},
                       {.basket = 4, .strength = 0.5f, .first_layer = 1, .apart = 11, .rows = {11, 12}},
                       {},
                       {.basket = 5, .strength = 1, .first_layer = 1, .rows = {0, 12}}};
  const Matrix of_batch = Expected(batch);
  cpu::ForEachKernelSet([&](const cpu::Kernels& kernels) {
    for (const auto& [precision, least] : {std::pair(Precision::kFloat32, 0.9999999),
                                           std::pair(Precision::kBfloat16, 0.998), std::pair(Precision::kInt8, 0.98)}) {
      for (const int helpers : {0, 1}) {
        EXPECT_GE(LeastCosine(kernels, precision, batch, of_batch, helpers), least) << PrecisionName(precision);
      }
    }
  });
}

INSTANTIATE_TEST_SUITE_P(All, CpuEncoderTest,
                         ::testing::Values(Case{"encoder", [] { return Encoder(48, 3, 16, 100, 2); }},
                                           Case{"odd", [] { return Encoder(33, 3, 11, 45, 3); }},
                                           Case{"many_panels", [] { return Encoder(256, 8, 32, 512, 1); }},
                                           Case{"no_layers", [] { return Encoder(48, 3, 16, 100, 0); }},
                                           Case{"wide_heads", [] { return Encoder(40, 2, 80, 64, 1); }},
                                           Case{"decoder", [] { return Decoder(64, 4, 2, 16, 96, 2); }},
                                           Case{"odd_decoder", [] { return Decoder(30, 3, 1, 10, 37, 2); }},
                                           Case{"local", [] { return LocalEncoder(48, 3, 16, 100, 4); }},
                                           Case{"local_beyond", [] { return LocalEncoder(33, 3, 10, 45, 29); }},
                                           Case{"sandwich", [] { return SandwichEncoder(40, 4, 2, 24, 37); }},
                                           Case{"biased", [] { return BiasedEncoder(48, 4, 5); }}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(CpuEncoderCheckTest, UnsupportedProgramsAreRefused) {
  const auto refused = [](const std::function<void(ProgramMaker&, Value)>& layer) {
    ProgramMaker make(3);
    make.program.word = make.Random(50, 48, 1);
    layer(make, make.program.input = make.NewValue(48));
    make.program.output = static_cast<Value>(make.program.widths.size()) - 1;
    make.EndLayer();
    return MakeCpuEncoder(std::move(make.program), Precision::kFloat32, *cpu::AvailableKernels().front())
               .status()
               .code() == absl::StatusCode::kUnimplemented;
  };
  for (const int width : {32, 64}) {  // Pooling reads as many columns as the word table has.
    EXPECT_TRUE(refused([width](ProgramMaker& make, Value x) { make.Linear(x, width); })) << width;
  }
  EXPECT_FALSE(refused([](ProgramMaker& make, Value x) { make.Linear(x, 48); }));
  EXPECT_TRUE(refused([](ProgramMaker& make, Value x) { make.Linear(make.Attention(x, 1, 1, 16, false), 48); }));
  EXPECT_TRUE(refused(
      [](ProgramMaker& make, Value x) { make.Add(make.Attention(make.Linear(x, 3 * 48), 1, 1, 48, false), x); }));
  EXPECT_TRUE(refused(
      [](ProgramMaker& make, Value x) { make.Linear(make.Attention(make.Linear(x, 3 * 300), 1, 1, 300, false), 48); }));
  EXPECT_TRUE(refused([](ProgramMaker& make, Value x) {
    const Value qkv = make.Linear(x, 3 * 16);
    make.Linear(make.Attention(qkv, 1, 1, 16, false), 48);
    make.Linear(qkv, 48);
  }));
  EXPECT_TRUE(refused([](ProgramMaker& make, Value x) {
    make.Linear(make.Attention(make.HeadNorm(x, 1, 1, 16), 1, 1, 16, false), 48);
  }));
  EXPECT_TRUE(refused([](ProgramMaker& make, Value x) {
    const AttentionOp attention{
        .in = make.Linear(x, 48), .heads = 1, .key_value_heads = 1, .relative_bias = make.Random(1, 2 * 300 + 1, 1)};
    make.Linear(make.Attend(attention, 16), 48);
  }));
  EXPECT_TRUE(refused([](ProgramMaker& make, Value x) {
    for (const double base : {100.0, 200.0}) {
      AttentionOp attention{.in = make.Linear(x, 48), .heads = 1, .key_value_heads = 1};
      attention.local = LocalWindow{.reach = 2, .rotary_base = base};
      x = make.Linear(make.Attend(attention, 16), 48);
    }
  }));
}

VectorBlock EncodeBy(const cpu::Kernels& kernels, const Program& program, Precision precision,
                     const PackingOptions& packing, const PackedBatch& batch) {
  const auto encoder = MakeCpuEncoder(program, precision, kernels, packing);
  EXPECT_TRUE(encoder.ok()) << encoder.status();
  Team team;
  Team::Leader leader(team);
  const auto block = (*encoder)->Encode(batch, leader, [] { return false; });
  EXPECT_TRUE(block.ok()) << block.status();
  return *block;
}

TEST(CpuEncoderWeightsTest, StreamedWeightsGiveTheSameVectors) {
  cpu::ForEachKernelSet([&](const cpu::Kernels& kernels) {
    const PackedBatch batch = Batch({7, 30, 12}, {{0, 7}, {7, 37}, {37, 49}});
    for (const Precision precision : {Precision::kFloat32, Precision::kInt8}) {
      const Program program = Decoder(64, 4, 2, 16, 96, 3);
      std::vector<double> told;
      const VectorBlock resident =
          EncodeBy(kernels, program, precision,
                   {.threads = 2, .on_progress = [&told](double share) { told.push_back(share); }}, batch);
      EXPECT_EQ(EncodeBy(kernels, program, precision, {.streamed = true}, batch).values, resident.values);
      EXPECT_TRUE(std::ranges::is_sorted(told));
      EXPECT_EQ(told.back(), 1);
    }
  });
}

#if defined(__aarch64__)
using Half = __fp16;  // GCC 12 does not support _Float16 on this platform.
#else
using Half = _Float16;
#endif

// Returns the matrix's numbers rounded to 16 bits, stored in 16 bits and in 32 bits.
std::pair<StoredMatrix, StoredMatrix> InBothWidths(const StoredMatrix& matrix, StoredElement element) {
  const auto* const from = reinterpret_cast<const float*>(matrix.data);
  auto narrow = std::make_shared<std::vector<uint16_t>>();
  auto wide = std::make_shared<std::vector<float>>();
  for (int64_t i = 0; i < matrix.rows * matrix.columns; ++i) {
    if (element == StoredElement::kBfloat16) {
      narrow->push_back(cpu::ToBfloat16(from[i]));
      wide->push_back(std::bit_cast<float>(uint32_t{narrow->back()} << 16));
    } else {
      const auto half = static_cast<Half>(i % 7 == 0 ? from[i] * 1e-6f : from[i]);  // Some of the values are subnormal.
      narrow->push_back(std::bit_cast<uint16_t>(half));
      wide->push_back(static_cast<float>(half));
    }
  }
  StoredMatrix stored = Weight{.rows = matrix.rows, .columns = matrix.columns, .owner = narrow};
  stored.data = reinterpret_cast<const std::byte*>(narrow->data());
  stored.element = element;
  return {stored, Weight{.data = wide->data(), .rows = matrix.rows, .columns = matrix.columns, .owner = wide}};
}

TEST(CpuEncoderWeightsTest, WeightsOf16BitsGiveTheVectorsOfTheSameNumbersIn32Bits) {
  cpu::ForEachKernelSet([&](const cpu::Kernels& kernels) {
    const PackedBatch batch = Batch({7, 30, 12}, {{0, 7}, {7, 37}, {37, 49}});
    for (const StoredElement element : {StoredElement::kBfloat16, StoredElement::kFloat16}) {
      for (const Precision precision : {Precision::kFloat32, Precision::kInt8}) {
        Program narrow = Decoder(64, 4, 2, 16, 96, 2), wide = narrow;
        for (size_t layer = 0; layer < narrow.layers.size(); ++layer) {
          for (size_t i = 0; i < narrow.layers[layer].size(); ++i) {
            auto* const op = std::get_if<LinearOp>(&narrow.layers[layer][i]);
            if (op == nullptr) continue;
            std::tie(op->weight, std::get<LinearOp>(wide.layers[layer][i]).weight) = InBothWidths(op->weight, element);
          }
        }
        EXPECT_EQ(EncodeBy(kernels, narrow, precision, {}, batch).values,
                  EncodeBy(kernels, wide, precision, {}, batch).values);
      }
    }
  });
}

// A layer as wide as that of a model with 7 B weights takes seconds for such a text.
TEST(CpuEncoderCancellationTest, IsCheckedManyTimesWithinALayer) {
  const auto encoder =
      MakeCpuEncoder(Decoder(2048, 16, 4, 128, 3072, 1), Precision::kFloat32, *cpu::AvailableKernels().front());
  ASSERT_TRUE(encoder.ok()) << encoder.status();
  const PackedBatch batch = Batch({500}, {{0, 500}});
  Team team;
  Team::Leader leader(team);
  int times = 0;
  const auto cancelled_at = [&times](int most) { return ++times >= most; };
  ASSERT_TRUE((*encoder)->Encode(batch, leader, [&] { return cancelled_at(1 << 30); }).ok());
  EXPECT_GT(times, 4);  // Between segments cancellation is checked only twice.
  times = 0;
  EXPECT_EQ((*encoder)->Encode(batch, leader, [&] { return cancelled_at(4); }).status().code(),
            absl::StatusCode::kCancelled);
  EXPECT_EQ(times, 4);  // Nothing is checked, and so nothing is started, after the cancellation.
}

// Overlapping spans take longer than the layers.
TEST(CpuEncoderCancellationTest, IsCheckedWhilePooling) {
  const auto encoder =
      MakeCpuEncoder(Encoder(64, 2, 32, 100, 1), Precision::kFloat32, *cpu::AvailableKernels().front());
  ASSERT_TRUE(encoder.ok()) << encoder.status();
  Team team;
  Team::Leader leader(team);
  int times = 0;
  const auto never = [&times] { return ++times < 0; };
  ASSERT_TRUE((*encoder)->Encode(Batch({64}, {{0, 64}}), leader, never).ok());
  const int in_layers = times;
  times = 0;
  const PackedBatch many = Batch({64}, std::vector<Range>(1 << 20, Range{0, 64}));
  const auto after_layers = [&] { return ++times > in_layers + 4; };
  EXPECT_EQ((*encoder)->Encode(many, leader, after_layers).status().code(), absl::StatusCode::kCancelled);
}

TEST(CpuEncoderCheckTest, WeightsThatAreNotFiniteAreRefused) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    for (const Precision precision : {Precision::kFloat32, Precision::kBfloat16, Precision::kInt8}) {
      for (const bool streamed : {false, true}) {
        Program program = Encoder(48, 3, 16, 100, 2);
        auto& linear = std::get<LinearOp>(*std::ranges::find_if(
            program.layers[1], [](const Op& op) { return std::holds_alternative<LinearOp>(op); }));
        auto numbers = std::make_shared<std::vector<float>>(linear.weight.rows * linear.weight.columns, 0.1f);
        (*numbers)[7 * linear.weight.columns + 3] = bad;
        linear.weight = Weight{
            .data = numbers->data(), .rows = linear.weight.rows, .columns = linear.weight.columns, .owner = numbers};
        auto encoder = MakeCpuEncoder(program, precision, *cpu::AvailableKernels().front(), {.streamed = streamed});
        absl::Status status = encoder.status();
        if (streamed) {
          Team team;
          Team::Leader leader(team);
          status = (*encoder)->Encode(Batch({2}, {{0, 2}}), leader, [] { return false; }).status();
        }
        EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
        EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("a weight of output 7 of a linear layer ["));
      }
    }
  }
}

TEST(CpuEncoderCheckTest, ABatchWithoutSpansHasNoVectors) {
  const auto encoder =
      MakeCpuEncoder(Encoder(48, 3, 16, 100, 1), Precision::kFloat32, *cpu::AvailableKernels().front());
  Team team;
  Team::Leader leader(team);
  const auto block = (*encoder)->Encode(PackedBatch{.sequence_offsets = {0}}, leader, [] { return false; });
  ASSERT_TRUE(block.ok());
  EXPECT_EQ(block->rows, 0);
  PackedBatch wrong = Batch({2}, {{0, 2}});
  wrong.tokens[1] = 50;
  EXPECT_EQ((*encoder)->Encode(wrong, leader, [] { return false; }).status().code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace longembed
