// Measures the parts of an encoding in process: matrix products, attention, norms, conversions and the tokenizer.
// Prints the share of each part in a step at 128 tokens and, for products, the fraction of the best rate that was seen
// on this machine.
//
//   kernels_benchmark MODEL_DIRECTORY [--threads N] [--seconds S] [--products PRECISION] [--kernels NAME]
//
// "best" is the fastest product found, with operands in cache. It is the best known limit of the machine. "linear" runs
// the linear layers of the whole model over 4,096 tokens, with each layer's weights read from memory. All threads run
// the same work. --products prints only the GFLOP/s of one layer's products in a precision, which also works for models
// with billions of weights.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <iostream>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "model/embed/model.h"
#include "model/embed/pipeline.h"
#include "model/encoder/cpu/kernels.h"
#include "model/encoder/cpu/packed_weights.h"
#include "model/encoder/load_encoder.h"

namespace longembed {
namespace {

using namespace cpu;

constexpr int kChunk = 96;
constexpr int kTokens = 4096;

[[noreturn]] void Die(const std::string& message) {
  std::cerr << "kernels_benchmark: " << message << "\n";
  std::exit(2);
}

struct Options {
  std::string model;
  int threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  double seconds = 1;
  std::string products;
  const Kernels* kernels = nullptr;
};

// Returns the seconds that the calling thread has run, so that other processes on the same cores do not count.
double ThreadSeconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Returns the seconds of one run of `body`, on all threads at once. The result is the best of at least one run, and of
// as many as fit into the time. `make(thread)` creates the body.
double Time(const Options& options, const std::function<std::function<void()>(int)>& make) {
  std::vector<double> best(options.threads, 1e9);
  std::vector<std::jthread> threads;
  for (int t = 0; t < options.threads; ++t) {
    threads.emplace_back([&, t] {
      const std::function<void()> body = make(t);
      const absl::Time end = absl::Now() + absl::Seconds(options.seconds);
      body();
      do {
        const double start = ThreadSeconds();
        body();
        best[t] = std::min(best[t], ThreadSeconds() - start);
      } while (absl::Now() < end);
    });
  }
  threads.clear();
  return *std::ranges::max_element(best);
}

struct LayerSize {
  int inputs = 0;
  int outputs = 0;
  bool gated = false;
};

// Owns the memory that a product reads and writes.
struct Product {
  Product(const Kernels& kernels, Precision precision, int rows, const LayerSize& size) : rows(rows) {
    const auto [inputs, outputs, gated] = size;
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> w(static_cast<size_t>(inputs) * outputs), x(static_cast<size_t>(rows) * inputs);
    for (float& value : w) value = normal(random);
    for (float& value : x) value = normal(random);
    weights = PackWeights(kernels, precision, w.data(), nullptr, outputs, inputs);
    if (gated) gate = PackWeights(kernels, precision, w.data(), nullptr, outputs, inputs);
    stride = RoundUp(weights.steps * kStepBytes, 64);
    operand = AlignedBuffer(static_cast<size_t>(stride) * rows + 64);
    scales.resize(rows);
    kernels.to_operand({reinterpret_cast<std::byte*>(x.data()), inputs * ptrdiff_t{4}}, rows, inputs, weights.operand,
                       operand.data(), stride, scales.data());
    out = AlignedBuffer(static_cast<size_t>(rows) * outputs * 4 + 64);
  }

  void Run() {
    const Operand in{.data = operand.data(),
                     .stride = stride,
                     .scales = weights.precision == Precision::kInt8 ? scales.data() : nullptr};
    const Rows to{out.data(), weights.outputs * ptrdiff_t{4}};
    const Activation activation = gate.has_value() ? Activation::kSilu : Activation::kNone;
    weights.kernels->multiply(weights.precision)(weights, gate.has_value() ? &*gate : nullptr, in, rows, 0,
                                                 weights.panel_count(), activation, to);
  }
  double operations() const { return 2.0 * rows * weights.inputs * weights.outputs * (gate.has_value() ? 2 : 1); }

  int rows;
  PackedWeights weights;
  std::optional<PackedWeights> gate;
  AlignedBuffer operand, out;
  ptrdiff_t stride = 0;
  std::vector<float> scales;
};

// Returns the GFLOP/s of all threads together.
double Rate(const Options& options, double operations, double seconds) {
  return operations * options.threads / seconds / 1e9;
}

double BestRate(const Options& options, Precision precision) {
  double best = 0;
  for (const auto& [rows, inputs, outputs] :
       {std::tuple{96, 384, 384}, {192, 384, 384}, {96, 768, 384}, {192, 512, 480}, {48, 1024, 240}}) {
    const LayerSize size{inputs, outputs};
    double operations = 0;
    const double seconds = Time(options, [&](int) {
      auto product = std::make_shared<Product>(*options.kernels, precision, rows, size);
      operations = 20 * product->operations();
      return [product] {
        for (int i = 0; i < 20; ++i) product->Run();
      };
    });
    best = std::max(best, Rate(options, operations, seconds));
  }
  return best;
}

// Returns the sizes of one layer's linear layers. A gate and its value are one product, as in the encoder.
std::vector<LayerSize> LinearLayers(const ModelManifest& m) {
  const int heads = m.attention_heads * m.head_dim, kv = m.key_value_heads * m.head_dim;
  return {{m.hidden_size, heads + 2 * kv},
          {heads, m.hidden_size},
          {m.hidden_size, m.intermediate_size, m.gated},
          {m.intermediate_size, m.hidden_size}};
}

struct LinearTime {
  double seconds = 0;  // For kTokens tokens through all layers.
  double operations = 0;
};

LinearTime MeasureLinear(const Options& options, const ModelManifest& manifest, Precision precision) {
  LinearTime result;
  // Shared by all threads: weights are only read, and outputs are written by every thread but never used.
  std::vector<Product> layers;
  for (int layer = 0; layer < manifest.layers; ++layer) {
    for (const LayerSize& size : LinearLayers(manifest)) layers.emplace_back(*options.kernels, precision, kChunk, size);
  }
  for (const Product& product : layers) result.operations += product.operations() * kTokens / kChunk;
  result.seconds = Time(options, [&](int) {
    return [&] {
      // Runs as the encoder does: a chunk of rows goes through all layers between two attentions, and then the next
      // chunk.
      const size_t per_layer = LinearLayers(manifest).size();
      for (int layer = 0; layer < manifest.layers; ++layer) {
        for (int first = 0; first < kTokens; first += kChunk) {
          for (size_t i = 0; i < per_layer; ++i) layers[layer * per_layer + i].Run();
        }
      }
    };
  });
  result.seconds *= double{kTokens} / RoundUp(kTokens, kChunk);
  return result;
}

// Returns the seconds of all heads of one layer and sequence. `reach` limits a local layer.
double MeasureLayer(const Options& options, const ModelManifest& m, Element element, int tokens, int reach) {
  const int columns = (m.attention_heads + 2 * m.key_value_heads) * m.head_dim;
  const AttentionShape shape{m.attention_heads, m.key_value_heads, m.head_dim, m.causal, reach};
  return Time(options, [&](int) {
    auto qkv = std::make_shared<AlignedBuffer>(static_cast<size_t>(tokens) * columns * SizeOf(element));
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (int i = 0; i < tokens * columns; ++i) {
      const float value = normal(random);
      if (element == Element::kFloat32) {
        reinterpret_cast<float*>(qkv->data())[i] = value;
      } else {
        reinterpret_cast<uint16_t*>(qkv->data())[i] = ToBfloat16(value);
      }
    }
    auto scratch = std::make_shared<AlignedBuffer>(options.kernels->attention_scratch(m.head_dim));
    return [=, &options] {
      const AttentionInput input{.qkv = {qkv->data(), columns * SizeOf(element), element},
                                 .tokens = tokens,
                                 .scale = 1 / std::sqrt(static_cast<float>(m.head_dim))};
      for (int first = 0; first < tokens; first += kMaxQueries) {
        options.kernels->attend(shape, input, 0, m.attention_heads, first, std::min(first + kMaxQueries, tokens),
                                scratch->data());
      }
    };
  });
}

double MeasureAttention(const Options& options, const ModelManifest& m, Element element, int tokens) {
  double seconds = (m.layers - m.local_layers) * MeasureLayer(options, m, element, tokens, AttentionShape::kEverywhere);
  if (m.local_layers > 0) seconds += m.local_layers * MeasureLayer(options, m, element, tokens, m.local_window);
  return seconds;
}

double MeasureLayerNorm(const Options& options, const ModelManifest& m) {
  const double seconds = Time(options, [&](int) {
    auto rows = std::make_shared<std::vector<float>>(3 * static_cast<size_t>(kChunk) * m.hidden_size, 0.5f);
    auto scale = std::make_shared<std::vector<float>>(m.hidden_size, 1.0f);
    return [=, &m, &options] {
      const auto view = [&](int i) {
        return Rows{reinterpret_cast<std::byte*>(rows->data() + static_cast<size_t>(i) * kChunk * m.hidden_size),
                    m.hidden_size * ptrdiff_t{4}};
      };
      for (int i = 0; i < 20; ++i) {
        options.kernels->layer_norm(view(0), view(1), view(2), kChunk, m.hidden_size, scale->data(), scale->data(),
                                    1e-12f);
      }
    };
  });
  return seconds / (20 * kChunk) * 2 * m.layers;  // Seconds per token, with two norms per layer.
}

double MeasureConversion(const Options& options, const ModelManifest& m, Precision precision) {
  if (precision == Precision::kFloat32 || (precision == Precision::kBfloat16 && !options.kernels->bfloat16_rows))
    return 0;
  double token = 0;
  for (const LayerSize& layer : LinearLayers(m)) {
    const int inputs = layer.inputs;
    const double seconds = Time(options, [&](int) {
      auto rows = std::make_shared<std::vector<float>>(static_cast<size_t>(kChunk) * inputs, 0.5f);
      auto out = std::make_shared<AlignedBuffer>(static_cast<size_t>(kChunk) * RoundUp(inputs * 4, 64));
      auto scales = std::make_shared<std::vector<float>>(kChunk);
      return [=, &options] {
        for (int i = 0; i < 20; ++i) {
          options.kernels->to_operand({reinterpret_cast<std::byte*>(rows->data()), inputs * ptrdiff_t{4}}, kChunk,
                                      inputs, precision, out->data(), RoundUp(inputs * 4, 64), scales->data());
        }
      };
    });
    token += seconds / (20 * kChunk) * m.layers;
  }
  return token;
}

double MeasureEncoder(const Options& options, const Model& model, Precision precision, int tokens) {
  const auto encoder =
      LoadEncoder(options.model, model.manifest, {.precision = precision, .kernels = options.kernels->name});
  if (!encoder.ok()) Die(std::string(encoder.status().message()));
  const std::vector<int32_t> content(
      tokens - model.manifest.special_prefix.size() - model.manifest.special_suffix.size(), 5000);
  const auto plan = PlanInput(model.manifest, {.content = content}, {}, *model.rotary_tables);
  if (!plan.ok()) Die(std::string(plan.status().message()));
  const int sequences = std::max(1, 512 / tokens);
  const double seconds = Time(options, [&](int) {
    auto team = std::make_shared<Team>();
    return [&, team, sequences] {
      Team::Leader leader(*team);
      const std::vector<const Sequence*> batch(sequences, &plan->sequences[0].sequence);
      if (!(*encoder)->Encode(Pack(batch), leader, [] { return false; }).ok()) Die("the encoder failed");
    };
  });
  return seconds / (sequences * tokens);
}

double MeasureTokenizer(const Options& options, const Model& model) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += "The committee postponed its decision because two reports had not arrived. ";
  size_t tokens = 0;
  const double seconds =
      Time(options, [&](int) { return [&] { tokens = model.tokenizer->Tokenize(text)->ids.size(); }; });
  return seconds / static_cast<double>(tokens);
}

void Report(const Options& options, const Model& model, Precision precision) {
  const ModelManifest& m = model.manifest;
  const Element element = precision == Precision::kFloat32 ? Element::kFloat32 : options.kernels->attention_element;
  const double best = BestRate(options, precision);
  const LinearTime linear = MeasureLinear(options, m, precision);
  const double linear_rate = Rate(options, linear.operations, linear.seconds);
  const double linear_token = linear.seconds / kTokens;
  const double limit_token = linear.operations / kTokens / (best / options.threads * 1e9);
  std::printf("\n%s, %s, %d threads; microseconds per token on one thread, all layers\n", PrecisionName(precision),
              options.kernels->name, options.threads);
  std::printf(
      "| part | us per token | GFLOP/s, all threads | fraction of the best rate | fraction of a step at 128 tokens |\n"
      "|---|---|---|---|---|\n");
  std::printf("| best product, in cache | %.1f | %.0f | 1.00 | |\n", limit_token * 1e6, best);
  const double step = MeasureEncoder(options, model, precision, 128);
  std::printf("| linear layers, 4,096 tokens | %.1f | %.0f | %.2f | %.2f |\n", linear_token * 1e6, linear_rate,
              linear_rate / best, linear_token / step);
  for (const int tokens : {16, 128, 512, 8192}) {
    const double token = MeasureAttention(options, m, element, tokens) / tokens;
    const double operations = 4.0 * m.attention_heads * m.head_dim * m.layers * tokens * (m.causal ? 0.5 : 1);
    const double rate = Rate(options, operations, token);
    const std::string share = tokens == 128 ? std::to_string(token / step).substr(0, 4) : "";
    std::printf("| attention (%s), %d tokens | %.1f | %.0f | %.2f | %s |\n",
                element == Element::kFloat32 ? "fp32" : "bf16", tokens, token * 1e6, rate,
                rate / (element == Element::kFloat32 ? best : BestRate(options, Precision::kBfloat16)), share.c_str());
  }
  const double norm = MeasureLayerNorm(options, m);
  std::printf("| layer norms with residual | %.2f | | | %.3f |\n", norm * 1e6, norm / step);
  if (const double conversion = MeasureConversion(options, m, precision); conversion > 0) {
    std::printf("| rows to operands | %.2f | | | %.3f |\n", conversion * 1e6, conversion / step);
  }
  for (const int tokens : {16, 128, 512}) {
    const double token = tokens == 128 ? step : MeasureEncoder(options, model, precision, tokens);
    std::printf("| whole encoder, %d tokens | %.1f | %.0f tokens/s | %.2f of the products' limit | %s |\n", tokens,
                token * 1e6, options.threads / token, limit_token / token, tokens == 128 ? "1.00" : "");
  }
}

void ReportProducts(const Options& options) {
  absl::StatusOr<ModelManifest> manifest = ReadManifest(options.model);
  if (!manifest.ok()) Die(std::string(manifest.status().message()));
  manifest->layers = 1;
  for (const Precision precision : {Precision::kFloat32, Precision::kBfloat16, Precision::kInt8}) {
    if (PrecisionName(precision) != options.products) continue;
    const LinearTime linear = MeasureLinear(options, *manifest, precision);
    std::printf("%.1f\n", Rate(options, linear.operations, linear.seconds));
  }
}

void Run(int argc, char** argv) {
  if (argc < 2)
    Die("usage: kernels_benchmark MODEL_DIRECTORY [--threads N] [--seconds S] [--products PRECISION] [--kernels NAME]");
  Options options{.model = argv[1]};
  std::string kernels;
  for (int i = 2; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    if (flag == "--threads")
      options.threads = std::max(1, std::atoi(argv[i + 1]));
    else if (flag == "--seconds")
      options.seconds = std::atof(argv[i + 1]);
    else if (flag == "--kernels")
      kernels = argv[i + 1];
    else if (flag == "--products")
      options.products = argv[i + 1];
    else
      Die("unknown flag " + flag);
  }
  const auto found = FindKernels(kernels);
  if (!found.ok()) Die(std::string(found.status().message()));
  options.kernels = *found;
  if (!options.products.empty()) return ReportProducts(options);
  const auto model = LoadModel(options.model);
  if (!model.ok()) Die(std::string(model.status().message()));
  for (const Precision precision : {Precision::kFloat32, Precision::kBfloat16, Precision::kInt8}) {
    Report(options, **model, precision);
  }
  std::printf("\ntokenizer: %.2f us a token on one thread\n", MeasureTokenizer(options, **model) * 1e6);
}

}  // namespace
}  // namespace longembed

int main(int argc, char** argv) {
  longembed::Run(argc, argv);
  return 0;
}
