#include "tests/fuzz/plan_invariants.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <string_view>
#include <vector>

#include "model/plan/cost.h"
#include "tests/fuzz/expect.h"

namespace longembed {
namespace {

// Returns true if `when` leaves an input of `whole` tokens plain.
bool IsPlain(const ModelManifest& model, const PlanOptions& options, int64_t whole) {
  const bool fits = !options.extension.windows.has_value() || whole <= options.limits.max_sequence_tokens;
  return options.extension.when == When::kLong && whole <= model.trained_window && fits;
}

void ExpectLimits(const PlanLimits& limits, const Plan& plan) {
  int64_t run = 0;
  for (const PlannedSequence& planned : plan.sequences) {
    FUZZ_EXPECT(planned.tokens >= 1);
    FUZZ_EXPECT(planned.tokens <= limits.max_sequence_tokens);
    FUZZ_EXPECT(planned.tokens <= plan.capacity || planned.tokens == plan.tokens);
    run += planned.tokens;
  }
  FUZZ_EXPECT(!plan.sequences.empty());
  FUZZ_EXPECT(run == plan.run_tokens());
  FUZZ_EXPECT(run <= limits.max_run_tokens);
  FUZZ_EXPECT(plan.vectors() <= limits.max_vectors);
  FUZZ_EXPECT(plan.tokens <= limits.max_tokens);
}

// Checks that windows cover `content` tokens from `start` on, in order and without gaps, that neighbors share the
// requested overlap, and that no window is too large.
void ExpectWindows(const Windows& windows, int64_t room, int64_t start, int64_t content,
                   const std::vector<PlannedSequence>& planned) {
  const int64_t stride = room - windows.overlap;
  FUZZ_EXPECT(stride >= 1);
  const int64_t beyond_first = std::max<int64_t>(0, content - room);
  FUZZ_EXPECT(static_cast<int64_t>(planned.size()) == 1 + (beyond_first + stride - 1) / stride);
  FUZZ_EXPECT(planned.front().content.start == start);
  FUZZ_EXPECT(planned.back().content.end == start + content);
  for (size_t i = 0; i < planned.size(); ++i) {
    const Range range = planned[i].content;
    const bool last = i + 1 == planned.size();
    FUZZ_EXPECT(range.size() <= room);
    if (!last || windows.last == LastWindow::kBackExtended) FUZZ_EXPECT(range.size() == std::min(room, content));
    if (i == 0) continue;
    const Range before = planned[i - 1].content;
    FUZZ_EXPECT(range.start > before.start && range.start <= before.end && range.end > before.end);
    if (!last || windows.last == LastWindow::kShort) FUZZ_EXPECT(before.end - range.start == windows.overlap);
  }
}

void ExpectWhole(const ModelManifest& model, const PlanOptions& options, const Plan& plan, int64_t overhead) {
  const int64_t whole = plan.tokens + plan.truncated_tokens, content = whole - overhead;
  FUZZ_EXPECT(plan.sequences.size() == 1);
  const Range kept = plan.sequences.front().content;
  FUZZ_EXPECT(0 <= kept.start && kept.start <= kept.end && kept.end <= content);
  FUZZ_EXPECT(kept.size() + overhead == plan.tokens);
  FUZZ_EXPECT(plan.tokens == plan.sequences.front().tokens);
  if (plan.truncated_tokens == 0) return;
  FUZZ_EXPECT(options.truncate != Truncate::kNone);
  // The plan reports the capacity of the requested extension. For an input that stays plain, it is the model's own
  // limit.
  const int64_t plain_limit = std::min<int64_t>(model.plain_limit, options.limits.max_sequence_tokens);
  const int64_t left = std::min(whole, options.max_tokens.value_or(whole));
  FUZZ_EXPECT(plan.tokens == std::min(left, IsPlain(model, options, left) ? plain_limit : plan.capacity));
  FUZZ_EXPECT(options.truncate == Truncate::kEnd ? kept.start == 0 : kept.end == content);
}

bool Is(const Positions& positions, std::string_view method) { return positions.method == method; }

void ExpectPositions(const ModelManifest& model, const Positions& positions, int64_t n) {
  FUZZ_EXPECT(std::isfinite(positions.factor) && positions.factor >= 1);
  FUZZ_EXPECT(std::isfinite(positions.query_scale) && positions.query_scale >= 0.1);
  FUZZ_EXPECT(std::isfinite(positions.base.value_or(0)));
  FUZZ_EXPECT((positions.chunk_window > 0) == Is(positions, "dual_chunk"));
  if (Is(positions, "dual_chunk")) {
    FUZZ_EXPECT(positions.modulo >= 1 && positions.modulo < n);
    FUZZ_EXPECT(positions.modulo + positions.chunk_window <= model.trained_window);
  }
  const int64_t g = positions.group, w = positions.neighbor_window;
  if (Is(positions, "shifted_rotary")) {
    FUZZ_EXPECT(g == 1 && w >= 1 && w < n && positions.far_shift < 0 && w + positions.far_shift >= 0);
    FUZZ_EXPECT(std::max(w - 1, n - 1 + positions.far_shift) < model.trained_window);
    return;
  }
  if (!Is(positions, "self_extend")) {
    FUZZ_EXPECT(w == 0);
    return;
  }
  FUZZ_EXPECT(g >= 1 && w >= 1 && w < model.trained_window && w < n);
  // No pair of tokens is farther apart than in training.
  FUZZ_EXPECT((n - 1) / g + w - w / g <= model.trained_window);
}

// Checks positions in a table. The encoder clamps positions between the last row and the next one.
void ExpectTableRows(const ModelManifest& model, const Positions& positions, const Sequence& sequence) {
  FUZZ_EXPECT(sequence.rotary == nullptr);
  FUZZ_EXPECT(sequence.positions.size() == sequence.tokens.size());
  const float most = Is(positions, "interpolation") ? static_cast<float>(model.position_rows)
                                                    : static_cast<float>(model.position_rows - 1);
  float before = 0;
  for (const float position : sequence.positions) {
    FUZZ_EXPECT(position >= 0 && position <= most);  // Also fails for NaN.
    if (!Is(positions, "recurrent")) FUZZ_EXPECT(position >= before);
    before = position;
  }
  FUZZ_EXPECT(sequence.positions.front() == 0);
}

void ExpectRotations(const ModelManifest& model, const RotaryTable& table, int64_t n, double amplitude) {
  FUZZ_EXPECT(table.width == model.rotary_dim / 2);
  FUZZ_EXPECT(table.rows() >= n);
  FUZZ_EXPECT(table.cos.size() == table.sin.size());
  for (size_t i = 0; i < static_cast<size_t>(n * table.width); ++i) {
    const double length = std::hypot(table.cos[i], table.sin[i]);
    FUZZ_EXPECT(std::abs(length - amplitude) <= 1e-5 * amplitude);  // Also fails for NaN and infinity.
  }
}

// Checks the angle of token i, by which the fastest pair rotates. Only methods with a one-line formula are covered.
void ExpectFastestPair(const ModelManifest& model, const Positions& positions, const RotaryTable& table, int64_t n) {
  const bool one_line = !Is(positions, "ntk_by_parts") && !Is(positions, "yarn") && !positions.resonance;
  if (!one_line) return;
  for (const int64_t i : {int64_t{0}, n / 2, n - 1}) {
    double angle = static_cast<double>(i);
    if (Is(positions, "grouped")) angle = std::floor(angle / positions.factor);
    if (Is(positions, "recurrent")) angle = std::fmod(angle, model.trained_window);
    if (Is(positions, "dual_chunk")) angle = std::fmod(angle, static_cast<double>(positions.modulo));
    if (Is(positions, "interpolation")) angle /= positions.factor;
    const auto row = static_cast<size_t>(i * table.width);
    FUZZ_EXPECT(std::abs(table.cos[row] - std::cos(angle)) < 1e-5);
    FUZZ_EXPECT(std::abs(table.sin[row] - std::sin(angle)) < 1e-5);
  }
}

void ExpectRotary(const ModelManifest& model, const PlannedSequence& planned) {
  const Sequence& sequence = planned.sequence;
  const Positions& positions = planned.positions;
  FUZZ_EXPECT(sequence.positions.empty());
  FUZZ_EXPECT(sequence.rotary != nullptr);
  const double amplitude = Is(positions, "yarn") ? 0.1 * std::log(positions.factor) + 1 : 1;
  ExpectRotations(model, *sequence.rotary, planned.tokens, amplitude);
  ExpectFastestPair(model, positions, *sequence.rotary, planned.tokens);
  const bool by_distance = Is(positions, "self_extend") || Is(positions, "shifted_rotary");
  const bool chunks = Is(positions, "dual_chunk");
  FUZZ_EXPECT(sequence.neighbor_window == (by_distance ? positions.neighbor_window : 0));
  FUZZ_EXPECT((sequence.rotary_grouped != nullptr) == (by_distance || chunks));
  FUZZ_EXPECT((sequence.rotary_shifted != nullptr) == (by_distance || chunks));
  FUZZ_EXPECT(sequence.chunk == (chunks ? positions.modulo : 0));
  if (!by_distance && !chunks) return;
  ExpectRotations(model, *sequence.rotary_grouped, planned.tokens, 1);
  ExpectRotations(model, *sequence.rotary_shifted, planned.tokens, 1);
}

void ExpectCalibration(const ModelManifest& model, const PlannedSequence& planned) {
  const Calibration& asked = planned.positions.calibration;
  const SequenceCalibration& calibration = planned.sequence.calibration;
  FUZZ_EXPECT((asked.layers > 0) == (calibration.basket > 0));
  if (asked.layers == 0) return;
  FUZZ_EXPECT(calibration.basket == asked.basket && calibration.basket < planned.tokens);
  FUZZ_EXPECT(calibration.strength >= 0 && calibration.strength <= 1);
  FUZZ_EXPECT(calibration.first_layer >= 0 && calibration.first_layer < model.layers);
  FUZZ_EXPECT(calibration.rows.start >= 0 && calibration.rows.size() > 0 && calibration.rows.end <= planned.tokens);
  FUZZ_EXPECT(calibration.apart == -1 || calibration.rows == (Range{calibration.apart, calibration.apart + 1}));
}

// Checks that each token of each span occurs exactly once, whatever windows hold it.
void ExpectParts(const Plan& plan) {
  std::vector<int64_t> tokens(plan.spans.size());
  size_t row = 0;
  for (const PlannedSequence& planned : plan.sequences) {
    for (const Range span : planned.sequence.spans) {
      FUZZ_EXPECT(row < plan.parts.size() && plan.parts[row].tokens == span.size());
      tokens[static_cast<size_t>(plan.parts[row++].span)] += span.size();
    }
  }
  FUZZ_EXPECT(row == plan.parts.size());
  for (size_t i = 0; i < tokens.size(); ++i) FUZZ_EXPECT(tokens[i] == plan.spans[i].size());
}

void ExpectSpans(const Plan& plan) {
  for (const PlannedSequence& planned : plan.sequences) {
    FUZZ_EXPECT(!planned.sequence.spans.empty());
    for (const Range span : planned.sequence.spans) {
      FUZZ_EXPECT(0 <= span.start && span.start < span.end && span.end <= planned.tokens);
    }
  }
  if (plan.spans.empty()) {
    for (const PlannedSequence& planned : plan.sequences) FUZZ_EXPECT(planned.sequence.spans.size() == 1);
    return;
  }
  if (!plan.parts.empty()) return ExpectParts(plan);
  const PlannedSequence& planned = plan.sequences.front();
  FUZZ_EXPECT(planned.sequence.spans.size() == plan.spans.size());
  for (size_t i = 0; i < plan.spans.size(); ++i) {
    FUZZ_EXPECT(planned.content.start <= plan.spans[i].start && plan.spans[i].end <= planned.content.end);
    FUZZ_EXPECT(plan.spans[i].size() == planned.sequence.spans[i].size());
  }
}

bool SameTables(const std::shared_ptr<const RotaryTable>& one, const std::shared_ptr<const RotaryTable>& other,
                int64_t n) {
  if (one == nullptr || other == nullptr) return one == other;
  const auto same = [](std::span<const float> a, std::span<const float> b) { return std::ranges::equal(a, b); };
  const auto size = static_cast<size_t>(n * one->width);
  return one->width == other->width && one->cos.size() >= size && other->cos.size() >= size &&
         same({one->cos.data(), size}, {other->cos.data(), size}) &&
         same({one->sin.data(), size}, {other->sin.data(), size});
}

}  // namespace

void ExpectPlan(const ModelManifest& model, const PlanOptions& options, int64_t overhead, const Plan& plan) {
  ExpectLimits(options.limits, plan);
  const int64_t whole = plan.tokens + plan.truncated_tokens, content = whole - overhead;
  FUZZ_EXPECT(content >= 0 && plan.truncated_tokens >= 0);
  const int64_t left = std::min(whole, options.max_tokens.value_or(whole));
  const bool plain = IsPlain(model, options, left);
  if (options.extension.windows.has_value() && !plain) {
    FUZZ_EXPECT(plan.truncated_tokens == whole - left);
    FUZZ_EXPECT(whole == left || options.truncate != Truncate::kNone);
    const int64_t room = WindowTokens(model, options.extension) - overhead;
    const int64_t start = options.truncate == Truncate::kStart ? whole - left : 0;
    // If there are spans, windows that no span needs are left out.
    if (plan.parts.empty()) {
      ExpectWindows(*options.extension.windows, room, start, left - overhead, plan.sequences);
    }
  } else {
    ExpectWhole(model, options, plan, overhead);
  }
  const RotaryTable* checked = nullptr;  // Windows of equal length share their table.
  for (const PlannedSequence& planned : plan.sequences) {
    FUZZ_EXPECT(planned.sequence.size() == planned.tokens);
    FUZZ_EXPECT(planned.tokens == planned.content.size() + overhead);
    FUZZ_EXPECT(!plain || planned.positions.is_plain());
    ExpectPositions(model, planned.positions, planned.tokens);
    if (model.family == Family::kApe) ExpectTableRows(model, planned.positions, planned.sequence);
    if (model.family == Family::kRope && planned.sequence.rotary.get() != checked) ExpectRotary(model, planned);
    checked = planned.sequence.rotary.get();
  }
  for (const PlannedSequence& planned : plan.sequences) ExpectCalibration(model, planned);
  ExpectSpans(plan);
  const Cost cost = EstimateCost(model, plan);
  FUZZ_EXPECT(cost.tokens == plan.run_tokens() && std::isfinite(cost.gflop) && cost.gflop >= 0);
}

void ExpectTokens(const ModelManifest& model, const InputTokens& input, const Plan& plan) {
  for (const PlannedSequence& planned : plan.sequences) {
    std::vector<int32_t> expected;
    const auto append = [&expected](std::span<const int32_t> ids) {
      expected.insert(expected.end(), ids.begin(), ids.end());
    };
    if (!input.complete) append(model.special_prefix), append(input.prompt);
    append(
        input.content.subspan(static_cast<size_t>(planned.content.start), static_cast<size_t>(planned.content.size())));
    if (!input.complete) append(model.special_suffix);
    FUZZ_EXPECT(planned.sequence.tokens == expected);
  }
}

void ExpectSamePlan(const Plan& one, const Plan& other) {
  FUZZ_EXPECT(one.tokens == other.tokens && one.truncated_tokens == other.truncated_tokens);
  FUZZ_EXPECT(one.capacity == other.capacity && one.spans == other.spans);
  FUZZ_EXPECT(one.sequences.size() == other.sequences.size());
  for (size_t i = 0; i < one.sequences.size(); ++i) {
    const Sequence &a = one.sequences[i].sequence, &b = other.sequences[i].sequence;
    FUZZ_EXPECT(a.tokens == b.tokens && a.positions == b.positions && a.spans == b.spans);
    FUZZ_EXPECT(a.query_scale == b.query_scale && a.neighbor_window == b.neighbor_window);
    FUZZ_EXPECT(a.chunk == b.chunk);
    FUZZ_EXPECT(a.calibration.basket == b.calibration.basket && a.calibration.rows == b.calibration.rows);
    FUZZ_EXPECT(SameTables(a.rotary, b.rotary, a.size()));
    FUZZ_EXPECT(SameTables(a.rotary_grouped, b.rotary_grouped, a.size()));
    FUZZ_EXPECT(SameTables(a.rotary_shifted, b.rotary_shifted, a.size()));
  }
}

}  // namespace longembed
