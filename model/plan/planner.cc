#include "model/plan/planner.h"

#include <algorithm>
#include <utility>

#include "model/errors/errors.h"
#include "model/plan/rotations.h"
#include "model/plan/windows.h"
#include "system/return_if_error.h"

namespace longembed {
namespace {

// Returns the range of `content` tokens that remains if only `room` tokens fit.
Range Kept(int64_t content, int64_t room, Truncate truncate) {
  const auto size = static_cast<int32_t>(content);
  const auto kept = static_cast<int32_t>(std::min(content, room));
  return truncate == Truncate::kStart ? Range{size - kept, size} : Range{0, kept};
}

// Returns the maximum number of tokens of one sequence.
int64_t CapacityOf(const ModelManifest& model, const PlanOptions& options, const Extension& extension) {
  const int64_t max = options.limits.max_sequence_tokens;
  if (options.token_vectors == TokenVectors::kQuery) return std::min<int64_t>(model.token_vectors->query_tokens, max);
  if (extension.windows.has_value()) return std::min(WindowTokens(model, extension), max);
  return std::min(SequenceCapacity(model, extension).value_or(max), max);
}

// Returns the maximum number of tokens of an input that When::kLong leaves plain. Windows also divide an input within
// Lo that is too long for one sequence.
int64_t LongestPlain(const ModelManifest& model, const PlanOptions& options) {
  const int64_t window = model.trained_window;
  return options.extension.windows.has_value() ? std::min(window, options.limits.max_sequence_tokens) : window;
}

// Returns the tokens that are pooled into the vector of a sequence.
Range PooledSpan(Pooling pooling, int32_t tokens) {
  switch (pooling) {
    case Pooling::kMean:
    case Pooling::kNone:
      return {0, tokens};
    case Pooling::kCls:
      return {0, 1};
    case Pooling::kLast:
      return {tokens - 1, tokens};
  }
  return {0, tokens};
}

// Plans one input. Lives during one PlanInput call.
class Planner {
 public:
  Planner(const ModelManifest& model, const InputTokens& input, const PlanOptions& options, RotaryTableCache& tables)
      : model_(model), input_(input), options_(options), tables_(tables) {
    if (!input.complete) {
      overhead_ = static_cast<int64_t>(model.special_prefix.size() + input.prompt.size() + model.special_suffix.size());
    }
    const int64_t whole = input.before + std::ssize(input.content) + input.after;
    const int64_t room = options.max_tokens.value_or(overhead_ + whole) - overhead_;
    kept_ = Kept(whole, std::max<int64_t>(room, 0), options.truncate);
    plan_.truncated_tokens = whole - kept_.size();
    plan_.estimated = input.estimated;
    const bool is_short = overhead_ + content() <= LongestPlain(model, options);
    if (options.extension.when == When::kAlways || !is_short) extension_ = options.extension;
    if (is_query()) extension_ = {};
  }

  absl::StatusOr<Plan> Run() {
    RETURN_IF_ERROR(CheckCut());
    const bool empty_is_fine = options_.allow_empty && overhead_ > 0;
    if (content() == 0 && !empty_is_fine) return EmptyInput();
    const PlanLimits& limits = options_.limits;
    const bool is_cut = options_.truncate != Truncate::kNone && !extension_.windows.has_value();
    if (const int64_t n = overhead_ + content(); n > limits.max_tokens && !is_cut) {
      return InputBeyondLimit(n, limits.max_tokens);
    }
    plan_.capacity = CapacityOf(model_, options_, options_.extension);
    absl::Status status = extension_.windows.has_value() ? PlanWindows() : PlanWhole();
    if (status.ok() && options_.token_vectors != TokenVectors::kNone) status = PlaceTokens();
    if (!status.ok()) return status;
    return std::move(plan_);
  }

 private:
  // Returns the number of content tokens that options.max_tokens leaves.
  int64_t content() const { return kept_.size(); }
  bool is_query() const { return options_.token_vectors == TokenVectors::kQuery; }

  // Checks that special tokens and prompt fit into options.max_tokens, and that the content may be truncated to the
  // rest.
  absl::Status CheckCut() const {
    if (!options_.max_tokens.has_value()) return absl::OkStatus();
    const int64_t max = *options_.max_tokens, whole = plan_.truncated_tokens + content();
    if (overhead_ > max || (overhead_ == max && whole > 0)) return PromptBeyondMaxTokens(overhead_, max);
    if (plan_.truncated_tokens == 0) return absl::OkStatus();
    if (input_.complete) return CompleteIdsTooLong(whole, max, "options.max_tokens");
    return options_.truncate == Truncate::kNone ? InputBeyondMaxTokens(overhead_ + whole, max) : absl::OkStatus();
  }

  absl::Status PlanWindows() {
    const Windows& windows = *extension_.windows;
    const int64_t window = WindowTokens(model_, extension_);
    if (const int64_t max = options_.limits.max_sequence_tokens; window > max) {
      return WindowBeyondServerLimit("options.extension.windows.tokens", window, max);
    }
    const int64_t room = window - overhead_;
    if (room < 1) return PromptTooLong(overhead_, window);
    if (input_.complete && content() > room) return CompleteIdsTooLong(content(), window);
    if (windows.overlap >= room) return OverlapTooLarge("options.extension.windows.overlap", windows.overlap, room);
    const int64_t count = CountWindows(content(), room, windows.overlap);
    const bool vector_each = input_.spans == nullptr;
    if (vector_each && count > options_.limits.max_vectors) return TooManyVectors(count, options_.limits.max_vectors);
    const int64_t max = options_.limits.max_run_tokens;
    const int64_t run = count * (overhead_ + std::min(room, content()));
    if (run > max) return TooManyRunTokens(run, max);
    plan_.tokens = overhead_ + content();
    std::vector<Range> cut = CutWindows(content(), room, windows.overlap, windows.last);
    for (Range& range : cut) range = Moved(range);
    if (!vector_each) return AddWindowsOfSpans(cut);
    for (const Range range : cut) Add(range);
    return absl::OkStatus();
  }

  absl::Status PlanWhole() {
    const int64_t capacity = CapacityOf(model_, options_, extension_);
    if (overhead_ >= capacity) return PromptTooLong(overhead_, capacity);
    if (overhead_ + content() > capacity) {
      if (input_.complete) return CompleteIdsTooLong(content(), capacity);
      if (options_.truncate == Truncate::kNone) {
        return is_query() ? QueryTooLong(overhead_ + content(), capacity)
                          : InputTooLong(overhead_ + content(), capacity);
      }
    }
    const Range kept = Moved(Kept(content(), capacity - overhead_, options_.truncate));
    plan_.tokens = overhead_ + kept.size();
    const PlanLimits& limits = options_.limits;
    if (plan_.tokens > limits.max_tokens) return InputBeyondLimit(plan_.tokens, limits.max_tokens);
    if (plan_.tokens > limits.max_run_tokens) return TooManyRunTokens(plan_.tokens, limits.max_run_tokens);
    plan_.truncated_tokens += content() - kept.size();
    Add(kept);
    return input_.spans != nullptr ? PlaceSpans(kept) : absl::OkStatus();
  }

  // Converts a range of the content that options.max_tokens leaves to a range of the whole content.
  Range Moved(Range range) const { return {range.start + kept_.start, range.end + kept_.start}; }

  void Add(Range range) {
    PlannedSequence planned{.sequence = MakeSequence(range), .content = range};
    Sequence& sequence = planned.sequence;
    const int32_t unattended = is_query() ? LengthenQuery(sequence) : 0;
    planned.tokens = sequence.size();
    planned.positions = PositionsOf(model_, extension_, planned.tokens);
    sequence.query_scale = static_cast<float>(planned.positions.query_scale);
    sequence.calibration = CalibrationOf(planned.positions.calibration, sequence);
    if (model_.family == Family::kApe) {
      sequence.positions = TableRows(model_, planned.positions, planned.tokens);
    } else if (!plan_.sequences.empty() && plan_.sequences.back().tokens == planned.tokens) {
      ShareRotations(plan_.sequences.back().sequence, sequence);
    } else {
      SetRotations(model_, planned.positions, tables_, sequence);
    }
    if (unattended > 0) sequence.neighbor_window = -unattended;
    plan_.sequences.push_back(std::move(planned));
  }

  // Returns the calibration of a sequence. If only the pooled special token of the last layer is read, only its row is
  // calibrated.
  SequenceCalibration CalibrationOf(const Calibration& asked, const Sequence& sequence) const {
    if (asked.layers == 0) return {};
    const bool special = model_.pooling == Pooling::kCls || model_.pooling == Pooling::kLast;
    const bool one_row =
        special && input_.spans == nullptr && options_.token_vectors == TokenVectors::kNone && !options_.sparse;
    const Range rows = one_row ? sequence.spans.front() : Range{0, sequence.size()};
    return {.basket = static_cast<int32_t>(asked.basket),
            .strength = static_cast<float>(asked.strength),
            .first_layer = static_cast<int32_t>(model_.layers - asked.layers),
            .apart = one_row ? rows.start : -1,
            .rows = rows};
  }

  // Appends expansion tokens to a query. Returns the number of them that no token attends to.
  int32_t LengthenQuery(Sequence& sequence) {
    const TokenVectorSettings& settings = *model_.token_vectors;
    const int32_t more = settings.expansion_tokens - sequence.size();
    if (more <= 0) return 0;
    sequence.tokens.insert(sequence.tokens.end(), static_cast<size_t>(more), settings.expansion_token);
    plan_.tokens += more;
    return settings.expansion_attended ? 0 : more;
  }

  // Adds a span for each token of each sequence, except for skipped tokens of documents.
  absl::Status PlaceTokens() {
    const std::vector<int32_t>& skipped = model_.token_vectors->skipped_tokens;
    const int32_t before = TokensBefore();
    for (PlannedSequence& planned : plan_.sequences) {
      Sequence& sequence = planned.sequence;
      sequence.spans.clear();
      for (int32_t i = 0; i < sequence.size(); ++i) {
        if (!is_query() && std::ranges::binary_search(skipped, sequence.tokens[i])) continue;
        sequence.spans.push_back({i, i + 1});
        const int32_t place = planned.content.start + i - before;
        plan_.spans.push_back({std::clamp(place, planned.content.start, planned.content.end),
                               std::clamp(place + 1, planned.content.start, planned.content.end)});
      }
    }
    const auto count = static_cast<int64_t>(plan_.spans.size());
    if (count > options_.limits.max_vectors) return TooManyVectors(count, options_.limits.max_vectors);
    return count > 0 ? absl::OkStatus() : NoSpanWithTokens();
  }

  Sequence MakeSequence(Range range) const {
    Sequence sequence;
    std::vector<int32_t>& tokens = sequence.tokens;
    tokens.reserve(static_cast<size_t>(overhead_ + range.size()));
    const auto append = [&tokens](std::span<const int32_t> ids) {
      tokens.insert(tokens.end(), ids.begin(), ids.end());
    };
    if (!input_.complete) {
      append(model_.special_prefix);
      append(input_.prompt);
    }
    const int64_t start = range.start - input_.before;
    append(input_.content.subspan(static_cast<size_t>(start), static_cast<size_t>(range.size())));
    if (!input_.complete) append(model_.special_suffix);
    sequence.spans = {PooledSpan(model_.pooling, sequence.size())};
    sequence.sparse = options_.sparse;
    return sequence;
  }

  int32_t TokensBefore() const {
    return static_cast<int32_t>(input_.complete ? 0 : model_.special_prefix.size() + input_.prompt.size());
  }

  // Adds the windows that hold tokens of spans (long late chunking, arXiv 2409.04701). Each token takes its state from
  // one window, and the vector of a span is the mean over its tokens, even if several windows hold them.
  absl::Status AddWindowsOfSpans(std::span<const Range> windows) {
    RETURN_IF_ERROR(KeepSpans(kept_));
    const std::vector<Range> owned = TokensOfWindows(windows);
    absl::StatusOr<std::vector<std::vector<SpanPart>>> parts = PartsOfWindows(owned);
    if (!parts.ok()) return parts.status();
    for (size_t i = 0; i < windows.size(); ++i) {
      if ((*parts)[i].empty()) continue;
      Add(windows[i]);
      const int32_t shift = TokensBefore() - windows[i].start;
      std::vector<Range>& spans = plan_.sequences.back().sequence.spans;
      spans.clear();
      for (const SpanPart part : (*parts)[i]) {
        const Range span = plan_.spans[static_cast<size_t>(part.span)];
        const int32_t start = std::max(span.start, owned[i].start) + shift;
        spans.push_back({start, start + part.tokens});
        plan_.parts.push_back(part);
      }
    }
    return absl::OkStatus();
  }

  // Returns, for each window, the parts of spans among the tokens that the window owns.
  absl::StatusOr<std::vector<std::vector<SpanPart>>> PartsOfWindows(std::span<const Range> owned) const {
    std::vector<std::vector<SpanPart>> parts(owned.size());
    int64_t count = 0;
    for (size_t i = 0; i < plan_.spans.size(); ++i) {
      const Range span = plan_.spans[i];
      const auto ends_before = [&span](Range window) { return window.end <= span.start; };
      for (auto window = std::ranges::partition_point(owned, ends_before);
           window != owned.end() && window->start < span.end; ++window) {
        const int64_t max = options_.limits.max_vectors;
        if (++count > max) return TooManyVectors(count, max);
        const int32_t tokens = std::min(span.end, window->end) - std::max(span.start, window->start);
        parts[static_cast<size_t>(window - owned.begin())].push_back({static_cast<int32_t>(i), tokens});
      }
    }
    return parts;
  }

  // Adds the requested spans to the only sequence.
  absl::Status PlaceSpans(Range kept) {
    RETURN_IF_ERROR(KeepSpans(kept));
    Sequence& sequence = plan_.sequences.front().sequence;
    const int32_t shift = TokensBefore() - kept.start;
    sequence.spans.clear();
    for (const Range span : plan_.spans) sequence.spans.push_back({span.start + shift, span.end + shift});
    return absl::OkStatus();
  }

  // Adds the requested spans to the plan, clipped to the tokens that truncation kept.
  absl::Status KeepSpans(Range kept) {
    const std::span<const Range> ranges = input_.spans->ranges;
    for (size_t i = 0; i < ranges.size(); ++i) {
      const Range clipped{std::max(ranges[i].start, kept.start), std::min(ranges[i].end, kept.end)};
      if (clipped.size() <= 0) {
        if (input_.spans->required) return SpanTruncated(i);
        continue;
      }
      const auto count = static_cast<int64_t>(plan_.spans.size());
      if (count == options_.limits.max_vectors) return TooManyVectors(count + 1, count);
      plan_.spans.push_back(clipped);
    }
    const int64_t pooled = plan_.span_tokens(), max = options_.limits.max_run_tokens;
    if (pooled > max) return TooManySpanTokens(pooled, max);
    return plan_.spans.empty() ? NoSpanWithTokens() : absl::OkStatus();
  }

  const ModelManifest& model_;
  const InputTokens& input_;
  const PlanOptions& options_;
  RotaryTableCache& tables_;
  Extension extension_;   // The extension that applies to this input: none if the input is short.
  int64_t overhead_ = 0;  // Tokens of a sequence that are not content.
  Range kept_;            // Content tokens that options.max_tokens leaves.
  Plan plan_;
};

}  // namespace

absl::Status CheckMaxTokens(const std::optional<int64_t>& max_tokens) {
  const int64_t max = max_tokens.value_or(1);
  return max >= 1 && max <= INT32_MAX ? absl::OkStatus() : MaxTokensOutOfRange(max);
}

absl::StatusOr<Plan> PlanInput(const ModelManifest& model, const InputTokens& input, const PlanOptions& options,
                               RotaryTableCache& tables) {
  return Planner(model, input, options, tables).Run();
}

std::optional<int64_t> TokensNeededForPlan(const ModelManifest& model, const PlanOptions& options) {
  if (options.truncate == Truncate::kNone) return std::nullopt;
  const bool in_windows = options.extension.windows.has_value() && options.token_vectors != TokenVectors::kQuery;
  if (in_windows) return options.max_tokens;
  // One token more than the capacity is enough to detect a text that is too long, or one that exceeds Lo (When::kLong).
  const int64_t capacity = std::max<int64_t>(
      {CapacityOf(model, options, options.extension), model.trained_window, CapacityOf(model, options, Extension())});
  return std::min(capacity, options.max_tokens.value_or(capacity)) + 1;
}

}  // namespace longembed
