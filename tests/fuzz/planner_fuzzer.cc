// Fuzzes CheckExtension and PlanInput with models, lengths and options made from the input bytes. Every plan must
// satisfy the invariants. Plans made with a shared cache of rotary tables must equal those made with a new cache.
#include <fuzzer/FuzzedDataProvider.h>

#include <bit>
#include <limits>
#include <numeric>
#include <vector>

#include "model/errors/errors.h"
#include "model/plan/planner.h"
#include "model/plan/windows.h"
#include "tests/fuzz/expect.h"
#include "tests/fuzz/plan_invariants.h"

namespace longembed {
namespace {

constexpr int kMaxContent = 3000;  // Small enough for several thousand inputs per second.
constexpr int64_t kMaxRun = 1 << 16;

// Draws a small number, a number close to `around`, or any number.
int64_t Whole(FuzzedDataProvider& data, int64_t around) {
  switch (data.ConsumeIntegralInRange(0, 5)) {
    case 0:
      return data.ConsumeIntegral<int64_t>();
    case 1:
      return data.PickValueInArray<int64_t>({0, 1, 2, 65535, 65536, 65537, std::numeric_limits<int32_t>::max(),
                                             std::numeric_limits<uint32_t>::max(), -1,
                                             std::numeric_limits<int64_t>::min()});
    case 2:
      return around + data.ConsumeIntegralInRange(-2, 2);
    default:
      return data.ConsumeIntegralInRange(0, 40);
  }
}

double Real(FuzzedDataProvider& data) {
  switch (data.ConsumeIntegralInRange(0, 4)) {
    case 0:
      return std::bit_cast<double>(data.ConsumeIntegral<uint64_t>());
    case 1:
      return data.PickValueInArray<double>(
          {0, -0.0, 1, 1 + 1e-15, 1 - 1e-15, kMaxFactor, kMaxRotaryBase, 1e300, 1e-300, -1,
           std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(),
           -std::numeric_limits<double>::infinity(), std::numeric_limits<double>::denorm_min()});
    case 2:
      return static_cast<double>(data.ConsumeIntegralInRange(1, 1 << 16));
    default:
      return data.ConsumeIntegralInRange(0, 4096) / 64.0;
  }
}

template <typename Draw>
auto Maybe(FuzzedDataProvider& data, Draw draw) -> std::optional<decltype(draw())> {
  if (!data.ConsumeBool()) return std::nullopt;
  return draw();
}

// Draws a model that ParseManifest would accept.
ModelManifest DrawModel(FuzzedDataProvider& data) {
  ModelManifest model{.name = "fuzzed",
                      .vocabulary_size = 1 << 20,
                      .hidden_size = 8,
                      .layers = 2,
                      .intermediate_size = 16,
                      .attention_heads = 2,
                      .key_value_heads = 1,
                      .head_dim = 32};
  model.family = data.ConsumeBool() ? Family::kApe : Family::kRope;
  model.pooling = data.PickValueInArray({Pooling::kMean, Pooling::kCls, Pooling::kLast, Pooling::kNone});
  model.trained_window = data.ConsumeIntegralInRange(2, data.ConsumeBool() ? 600 : 20);
  if (model.family == Family::kApe) {
    model.position_stride = data.ConsumeIntegralInRange(1, 8);
    model.position_rows = model.trained_window * model.position_stride + data.ConsumeIntegralInRange(0, 5);
    model.plain_limit = data.ConsumeIntegralInRange(model.trained_window, model.position_rows);
  } else {
    model.rotary_dim = 2 * data.ConsumeIntegralInRange(2, 16);
    model.rotary_base = data.PickValueInArray<double>({10000, 500000, 1e12, 1.5, 1 + 1e-9});
    model.plain_limit = data.ConsumeIntegralInRange(model.trained_window, 2 * model.trained_window);
  }
  const int room = std::min(model.plain_limit - 1, 3);
  model.special_prefix.assign(static_cast<size_t>(data.ConsumeIntegralInRange(0, room)), 7);
  const int rest = room - static_cast<int>(model.special_prefix.size());
  model.special_suffix.assign(static_cast<size_t>(data.ConsumeIntegralInRange(0, rest)), 9);
  return model;
}

PositionsMethod DrawMethod(FuzzedDataProvider& data, const ModelManifest& model) {
  const auto whole = [&] { return Whole(data, model.trained_window); };
  const auto real = [&] { return Real(data); };
  switch (data.ConsumeIntegralInRange(0, 10)) {
    case 0:
      return Grouped{Maybe(data, whole)};
    case 1:
      return Recurrent{};
    case 2:
      return Interpolation{Maybe(data, real)};
    case 3:
      return Ntk{.base = Maybe(data, real), .factor = Maybe(data, real)};
    case 4:
      return NtkDynamic{real()};
    case 5:
      return NtkByParts{.factor = Maybe(data, real),
                        .beta_fast = Maybe(data, real).value_or(32),
                        .beta_slow = Maybe(data, real).value_or(1)};
    case 6:
      return Yarn{.factor = Maybe(data, real),
                  .beta_fast = Maybe(data, real).value_or(32),
                  .beta_slow = Maybe(data, real).value_or(1)};
    case 7:
      return SelfExtend{.group = Maybe(data, whole), .neighbor_window = Maybe(data, whole)};
    case 8:
      return DualChunk{.chunk = Maybe(data, whole), .local_window = Maybe(data, whole)};
    case 9:
      return ShiftedRotary{.shift_from = Maybe(data, whole), .local_window = Maybe(data, whole)};
    default:
      return PlainPositions{};
  }
}

Extension DrawExtension(FuzzedDataProvider& data, const ModelManifest& model) {
  Extension extension{.when = data.ConsumeBool() ? When::kAlways : When::kLong};
  if (data.ConsumeBool()) {
    extension.windows = {.tokens = Maybe(data, [&] { return Whole(data, model.trained_window); }),
                         .overlap = data.ConsumeBool() ? Whole(data, model.trained_window / 2) : 0,
                         .last = data.ConsumeBool() ? LastWindow::kBackExtended : LastWindow::kShort};
  }
  extension.positions = DrawMethod(data, model);
  extension.resonance = data.ConsumeBool();
  extension.attention_log_scaling = data.ConsumeBool();
  if (data.ConsumeBool()) extension.attention_temperature = data.ConsumeFloatingPointInRange<double>(0.1, 10);
  if (data.ConsumeBool()) {
    extension.attention_calibration = {.strength = data.ConsumeFloatingPointInRange<double>(0, 1),
                                       .basket = data.ConsumeIntegralInRange<int64_t>(1, 300),
                                       .layers = data.ConsumeFloatingPointInRange<double>(1e-6, 1)};
  }
  return extension;
}

PlanOptions DrawOptions(FuzzedDataProvider& data, Extension extension) {
  PlanOptions options{.truncate = data.PickValueInArray({Truncate::kNone, Truncate::kEnd, Truncate::kStart}),
                      .extension = std::move(extension)};
  const auto limit = [&](int64_t most) {
    return data.ConsumeBool() ? most : data.ConsumeIntegralInRange<int64_t>(1, most);
  };
  options.limits = {.max_tokens = limit(2 * kMaxContent),
                    .max_sequence_tokens = limit(kMaxContent),
                    .max_run_tokens = limit(kMaxRun),
                    .max_vectors = limit(kMaxContent)};
  options.allow_empty = data.ConsumeBool();
  options.max_tokens = Maybe(data, [&] { return data.ConsumeIntegralInRange<int64_t>(1, 2 * kMaxContent); });
  return options;
}

std::vector<Range> DrawSpans(FuzzedDataProvider& data, int32_t content) {
  std::vector<Range> spans(content == 0 ? 0 : static_cast<size_t>(data.ConsumeIntegralInRange(1, 5)));
  for (Range& span : spans) {
    span.start = data.ConsumeIntegralInRange(0, content - 1);
    span.end = data.ConsumeIntegralInRange(span.start + 1, content);
  }
  return spans;
}

void PlanOne(FuzzedDataProvider& data, const ModelManifest& model, const PlanOptions& options) {
  std::vector<int32_t> prompt(static_cast<size_t>(data.ConsumeIntegralInRange(0, data.ConsumeBool() ? 0 : 30)));
  std::vector<int32_t> content(
      static_cast<size_t>(data.ConsumeIntegralInRange(0, data.ConsumeBool() ? kMaxContent : 60)));
  std::iota(prompt.begin(), prompt.end(), 100);
  std::iota(content.begin(), content.end(), 1000);
  InputTokens input{.prompt = prompt, .content = content, .complete = data.ConsumeBool()};
  const std::vector<Range> ranges = DrawSpans(data, static_cast<int32_t>(content.size()));
  const SpanChoice spans{.ranges = ranges, .required = data.ConsumeBool()};
  if (data.ConsumeBool() && !ranges.empty()) input.spans = &spans;

  // The cache is so small that it drops tables all the time.
  static RotaryTableCache& shared = *new RotaryTableCache(1 << 16);
  RotaryTableCache own;
  const absl::StatusOr<Plan> plan = PlanInput(model, input, options, shared),
                             alone = PlanInput(model, input, options, own);
  FUZZ_EXPECT(plan.status() == alone.status());
  if (!plan.ok()) return ExpectRefusal(plan.status());
  const size_t overhead =
      input.complete ? 0 : model.special_prefix.size() + prompt.size() + model.special_suffix.size();
  ExpectPlan(model, options, static_cast<int64_t>(overhead), *plan);
  ExpectTokens(model, input, *plan);
  ExpectSamePlan(*plan, *alone);
}

// Checks lengths that do not fit into a test's memory.
void CheckHugeLengths(FuzzedDataProvider& data, const ModelManifest& model, const Extension& extension) {
  constexpr int64_t kHuge = std::numeric_limits<int32_t>::max();
  const int64_t capacity = std::min(SequenceCapacity(model, extension).value_or(kHuge), kHuge);
  FUZZ_EXPECT(capacity >= 1);
  const int64_t n = data.ConsumeIntegralInRange<int64_t>(1, capacity);
  const Positions positions = PositionsOf(model, extension, n);
  FUZZ_EXPECT(std::isfinite(positions.factor) && positions.factor >= 1);
  if (model.family == Family::kRope) {
    for (const double frequency : RotaryFrequencies(model, positions))
      FUZZ_EXPECT(std::isfinite(frequency) && frequency > 0);
    FUZZ_EXPECT(std::isfinite(positions.amplitude));
  }
  const int64_t room = data.ConsumeIntegralInRange<int64_t>(1, kHuge);
  const int64_t overlap = data.ConsumeIntegralInRange<int64_t>(0, room - 1);
  const int64_t content = data.ConsumeIntegralInRange<int64_t>(0, kHuge);
  const int64_t count = CountWindows(content, room, overlap);
  FUZZ_EXPECT(count >= 1 && room + (count - 1) * (room - overlap) >= content);
  FUZZ_EXPECT(count == 1 || room + (count - 2) * (room - overlap) < content);
}

void Run(FuzzedDataProvider& data) {
  const ModelManifest model = DrawModel(data);
  const Extension extension = DrawExtension(data, model);
  if (const absl::Status status = CheckExtension(model, extension); !status.ok()) {
    FUZZ_EXPECT(!ErrorField(status).empty());
    return ExpectRefusal(status);
  }
  const PlanOptions options = DrawOptions(data, extension);
  PlanOne(data, model, options);
  CheckHugeLengths(data, model, extension);
}

}  // namespace
}  // namespace longembed

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  FuzzedDataProvider data(bytes, size);
  longembed::Run(data);
  return 0;
}
