#include "server/api/longembed/request_converter.h"

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"
#include "model/text/prompt.h"
#include "model/vector/encoding.h"
#include "model/vector/token_pooling.h"
#include "server/core/recipe.h"
#include "server/errors/errors.h"
#include "system/return_if_error.h"

namespace longembed {
namespace {

using v1::EmbedOptions;

// Rejects unknown values: proto3's enums are open and accept any number.
absl::Status CheckEnums(const EmbedOptions& options) {
  if (options.has_input_type() && !EmbedOptions::InputType_IsValid(options.input_type())) {
    return UnknownEnumValue("options.input_type", options.input_type());
  }
  if (!EmbedOptions::Truncate_IsValid(options.truncate())) {
    return UnknownEnumValue("options.truncate", options.truncate());
  }
  if (!EmbedOptions::Encoding_IsValid(options.encoding())) {
    return UnknownEnumValue("options.encoding", options.encoding());
  }
  if (!EmbedOptions::Output_IsValid(options.output())) return UnknownEnumValue("options.output", options.output());
  if (!EmbedOptions::Priority_IsValid(options.priority())) {
    return UnknownEnumValue("options.priority", options.priority());
  }
  return absl::OkStatus();
}

// Returns the field of a request that enables windows.
const char* WindowsField(const v1::Extension& asked) {
  if (!asked.profile().empty()) return "options.extension.profile";
  return asked.has_recommended() ? "options.extension.recommended" : "options.extension.windows";
}

// Fits the windows of `extension`, which was resolved from `asked`, to the server's limit. Refuses an explicit size
// above it.
absl::Status FitWindowsOf(const v1::Extension& asked, const ModelManifest& model, int64_t max_tokens_per_sequence,
                          Extension& extension) {
  if (const absl::Status status = CheckWindowSize(extension, max_tokens_per_sequence); !status.ok()) {
    return AtField(status, asked.has_windows() ? "options.extension" : WindowsField(asked));
  }
  FitWindows(model, max_tokens_per_sequence, extension);
  return absl::OkStatus();
}

// Returns options.output, or the model's default.
absl::StatusOr<EmbedOptions::Output> OutputOf(const EmbedOptions& options, const ModelManifest& model) {
  const std::vector<std::string> available = OutputsOf(model);
  EmbedOptions::Output output = options.output();
  if (!options.has_output()) EmbedOptions::Output_Parse(available.front(), &output);
  RETURN_IF_ERROR(CheckOutput(model, EmbedOptions::Output_Name(output)));
  return output;
}

// Returns whether a model of token vectors encodes the texts as queries or as documents.
absl::StatusOr<TokenVectors> TokenVectorsOf(const EmbedOptions& options, EmbedOptions::Output output,
                                            const ModelManifest& model) {
  if (output != EmbedOptions::TOKEN_VECTORS) return TokenVectors::kNone;
  const auto named = [&](const char* type, EmbedOptions::InputType input_type) {
    return options.has_prompt_name() ? options.prompt_name() == model.input_types.at(type)
                                     : options.input_type() == input_type;
  };
  if (named("DOCUMENT", EmbedOptions::DOCUMENT)) return TokenVectors::kDocument;
  if (!named("QUERY", EmbedOptions::QUERY)) return InputTypeNeeded();
  if (options.extension().when() == v1::Extension::ALWAYS) {
    return ExtensionConflict("options.extension.when",
                             "is ALWAYS, and queries are not extended; leave it out for queries");
  }
  return TokenVectors::kQuery;
}

// Rejects options that have no meaning for weights of vocabulary entries.
absl::Status CheckSparse(const EmbedOptions& options, const ModelManifest& model) {
  if (options.has_dimensions()) {
    return NotWithSparse("options.dimensions", absl::StrCat(options.dimensions()),
                         "leave it out, or keep the largest weights by options.max_terms");
  }
  if (options.normalize()) return NotWithSparse("options.normalize", "true", "leave it out: weights are as trained");
  if (options.encoding() == EmbedOptions::BINARY) {
    return NotWithSparse("options.encoding", "BINARY", "take FLOAT32, FLOAT16, BFLOAT16 or INT8");
  }
  const v1::Extension::Windows& windows = options.extension().windows();
  if (windows.has_aggregation() && windows.aggregation() != v1::Extension::Windows::MAX) {
    return NotWithSparse("options.extension.windows.aggregation",
                         v1::Extension::Windows::Aggregation_Name(windows.aggregation()),
                         "leave it out: SPARSE always takes the maximum of each weight over the windows");
  }
  const int64_t max_terms = options.has_max_terms() ? options.max_terms() : model.vocabulary_size;
  const bool in_range = max_terms >= 1 && max_terms <= model.vocabulary_size;
  return in_range ? absl::OkStatus() : MaxTermsOutOfRange(max_terms, model.vocabulary_size);
}

// Checks that output, spans and windows agree.
absl::Status CheckOutputOptions(const EmbedOptions& options, EmbedOptions::Output output, const Extension& extension,
                                const ModelManifest& model) {
  if (output == EmbedOptions::SPARSE) {
    RETURN_IF_ERROR(CheckSparse(options, model));
  } else if (options.has_max_terms()) {
    return Misplaced("options.max_terms", "options.output SPARSE");
  }
  if (options.has_token_pooling()) {
    if (output != EmbedOptions::TOKEN_VECTORS) {
      return Misplaced("options.token_pooling", "options.output TOKEN_VECTORS");
    }
    const int64_t factor = options.token_pooling();
    if (factor < 1 || factor > kTokensPooledTogether) return TokenPoolingOutOfRange(factor, kTokensPooledTogether);
  }
  if (output == EmbedOptions::WINDOW_VECTORS && !extension.windows.has_value()) return WindowVectorsNeedWindows();
  // A profile may set an aggregation for requests of one vector, so only one that the request itself sets is an error.
  const bool every_vector = output == EmbedOptions::WINDOW_VECTORS || output == EmbedOptions::TOKEN_VECTORS ||
                            output == EmbedOptions::SPAN_VECTORS;
  const bool in_groups = extension.windows.has_value() && extension.windows->vectors.has_value();
  if (in_groups && output != EmbedOptions::WINDOW_VECTORS) {
    return ExtensionConflict(
        absl::StrCat(WindowsField(options.extension()), options.extension().has_windows() ? ".vectors" : ""),
        absl::StrCat("makes groups of windows (vectors = ", *extension.windows->vectors,
                     "), which goes only with options.output WINDOW_VECTORS, not with ",
                     EmbedOptions::Output_Name(output)));
  }
  if (every_vector && !in_groups && options.extension().has_windows() &&
      extension.windows->aggregation != Aggregation::kMean) {
    return ExtensionConflict(
        "options.extension.windows.aggregation",
        absl::StrCat("has no effect with options.output ", EmbedOptions::Output_Name(output), "; leave it out"));
  }
  if (output == EmbedOptions::SPAN_VECTORS) {
    if (!options.has_spans() || options.spans().by_case() == v1::SpanOptions::BY_NOT_SET) return NoSpansNamed();
  } else if (options.has_spans()) {
    return Misplaced("options.spans", "options.output SPAN_VECTORS");
  }
  return absl::OkStatus();
}

absl::StatusOr<SpanRequest> ConvertSpans(const v1::SpanOptions& spans) {
  switch (spans.by_case()) {
    case v1::SpanOptions::kRanges:
      return GivenRanges{};
    case v1::SpanOptions::kSentences:
      return SentenceSpans{};
    case v1::SpanOptions::kEveryTokens:
      if (spans.every_tokens().tokens() < 1) return EveryTokensTooFew(spans.every_tokens().tokens());
      return EveryTokens{spans.every_tokens().tokens()};
    case v1::SpanOptions::BY_NOT_SET:
      break;
  }
  return NoSpans{};
}

PromptChoice ConvertPrompt(const EmbedOptions& options) {
  switch (options.prompting_case()) {
    case EmbedOptions::kPromptName:
      return PromptName{options.prompt_name()};
    case EmbedOptions::kPrompt:
      return LiteralPrompt{options.prompt()};
    case EmbedOptions::kInputType:
      if (options.input_type() == EmbedOptions::QUERY) return InputType::kQuery;
      if (options.input_type() == EmbedOptions::DOCUMENT) return InputType::kDocument;
      return std::monostate();
    case EmbedOptions::PROMPTING_NOT_SET:
      return std::monostate();
  }
  return std::monostate();
}

Truncate ConvertTruncate(EmbedOptions::Truncate truncate) {
  switch (truncate) {
    case EmbedOptions::END:
      return Truncate::kEnd;
    case EmbedOptions::START:
      return Truncate::kStart;
    default:
      return Truncate::kNone;
  }
}

// Returns the magnitude from which on the encoding cannot represent a component.
float BeyondEncoding(EmbedOptions::Encoding encoding) {
  if (encoding == EmbedOptions::FLOAT16) return kBeyondFloat16;
  if (encoding == EmbedOptions::BFLOAT16) return kBeyondBfloat16;
  return std::numeric_limits<float>::infinity();
}

absl::StatusOr<std::string> PromptOf(const EmbedOptions& options, const ModelManifest& model,
                                     const LimitsConfig& limits) {
  if (const auto bytes = static_cast<int64_t>(options.prompt().size()); bytes > limits.max_prompt_bytes) {
    return PromptTooLarge(bytes, limits.max_prompt_bytes);
  }
  return ResolvePrompt(model, ConvertPrompt(options));
}

absl::StatusOr<int> DimensionsOf(const EmbedOptions& options, const ModelManifest& model) {
  DimensionOptions asked{.force = options.force_dimensions()};
  if (options.has_dimensions()) asked.dimensions = options.dimensions();
  return ResolveDimensions(asked, model.trained_dimensions);
}

// Resolves options whose extension is complete.
absl::StatusOr<ResolvedOptions> ResolveOwnOptions(const EmbedOptions& options, const ServedModel& served,
                                                  const Profiles& profiles, const LimitsConfig& limits) {
  const ModelManifest& model = served.model().manifest;
  RETURN_IF_ERROR(CheckEnums(options));
  const absl::StatusOr<EmbedOptions::Output> output = OutputOf(options, model);
  if (!output.ok()) return output.status();
  const absl::StatusOr<TokenVectors> token_vectors = TokenVectorsOf(options, *output, model);
  if (!token_vectors.ok()) return token_vectors.status();
  absl::StatusOr<Extension> extension = ResolveExtension(options.extension(), *output, model, profiles);
  if (!extension.ok()) return extension.status();
  RETURN_IF_ERROR(FitWindowsOf(options.extension(), model, limits.max_tokens_per_sequence, *extension));
  std::optional<int64_t> max_tokens;
  if (options.has_max_tokens()) max_tokens = options.max_tokens();
  RETURN_IF_ERROR(CheckMaxTokens(max_tokens));
  RETURN_IF_ERROR(CheckOutputOptions(options, *output, *extension, model));
  const bool sparse = *output == EmbedOptions::SPARSE;
  if (sparse) AggregateSparse(*extension);
  absl::StatusOr<SpanRequest> spans = ConvertSpans(options.spans());
  if (!spans.ok()) return spans.status();
  absl::StatusOr<std::string> prompt = PromptOf(options, model, limits);
  if (!prompt.ok()) return prompt.status();
  const absl::StatusOr<int> dimensions = DimensionsOf(options, model);
  if (!dimensions.ok()) return dimensions.status();

  ResolvedOptions resolved;
  resolved.input = {.prompt = *std::move(prompt),
                    .plan = {.truncate = ConvertTruncate(options.truncate()),
                             .max_tokens = max_tokens,
                             .extension = *extension,
                             .limits = ToPlanLimits(limits),
                             .sparse = sparse,
                             .token_vectors = *token_vectors},
                    .spans = *std::move(spans)};
  resolved.vector = {.dimensions = *dimensions,
                     .normalize = !options.has_normalize() || options.normalize(),
                     .vector_per_window = *output == EmbedOptions::WINDOW_VECTORS,
                     .beyond_encoding = BeyondEncoding(options.encoding())};
  if (extension->windows.has_value()) resolved.vector.windows = *extension->windows;
  const int64_t pooling = options.has_token_pooling() ? options.token_pooling() : 1;
  if (*token_vectors == TokenVectors::kDocument) resolved.vector.token_pooling = pooling;
  resolved.priority = options.priority() == EmbedOptions::BULK ? Priority::kBulk : Priority::kInteractive;
  resolved.encoding = options.encoding();
  resolved.several_vectors = *output != EmbedOptions::ONE_VECTOR && !sparse;
  if (options.has_max_terms()) resolved.max_terms = options.max_terms();
  if (sparse) resolved.sparse_dimensions = model.vocabulary_size;
  resolved.recipe = Recipe(model, {.extension = *extension,
                                   .truncate = resolved.input.plan.truncate,
                                   .max_tokens = max_tokens,
                                   .max_sequence_tokens = LimitThatCuts(model, resolved.input.plan),
                                   .dimensions = *dimensions,
                                   .normalize = resolved.vector.normalize,
                                   .spans = *output == EmbedOptions::SPAN_VECTORS,
                                   .sparse = sparse,
                                   .max_terms = resolved.max_terms,
                                   .token_pooling = pooling,
                                   .encoding = EmbedOptions::Encoding_Name(options.encoding()),
                                   .precision = served.encoder().precision()});
  return resolved;
}

absl::StatusOr<std::vector<Range>> ConvertRanges(const v1::Input& input, const SpanRequest& spans,
                                                 const std::string& parent) {
  const std::string field = parent + ".ranges";
  const bool wanted = std::holds_alternative<GivenRanges>(spans);
  if (!wanted && !input.ranges().empty()) {
    return Misplaced(field, "options.output SPAN_VECTORS and options.spans.ranges");
  }
  if (wanted && input.ranges().empty()) return NoRanges(field);
  std::vector<Range> ranges;
  ranges.reserve(static_cast<size_t>(input.ranges_size()));
  for (const v1::Range& range : input.ranges()) {
    if (range.start() > INT32_MAX || range.end() > INT32_MAX) {
      return AtField(SpanOutOfRange(ranges.size(), range.start(), range.end(), "in any text", INT32_MAX), parent);
    }
    ranges.push_back({static_cast<int32_t>(range.start()), static_cast<int32_t>(range.end())});
  }
  return ranges;
}

int BitsOf(EmbedOptions::Encoding encoding) {
  switch (encoding) {
    case EmbedOptions::FLOAT16:
    case EmbedOptions::BFLOAT16:
      return 16;
    case EmbedOptions::INT8:
      return 8;
    case EmbedOptions::BINARY:
      return 1;
    default:
      return 32;
  }
}

}  // namespace

PlanLimits ToPlanLimits(const LimitsConfig& limits) {
  return {.max_tokens = limits.max_tokens_per_input,
          .max_sequence_tokens = limits.max_tokens_per_sequence,
          .max_run_tokens = limits.max_run_tokens_per_call,
          .max_vectors = limits.max_vectors_per_call};
}

absl::StatusOr<ResolvedOptions> ResolveOptions(const EmbedOptions& options, const ModelChoice& choice,
                                               const Profiles& profiles, const LimitsConfig& limits) {
  if (choice.extension == nullptr) return ResolveOwnOptions(options, *choice.model, profiles, limits);
  if (options.has_extension()) return ExtensionBesideAlias("options.model", choice.profile);
  EmbedOptions under_profile = options;
  under_profile.mutable_extension()->set_profile(choice.profile);
  absl::StatusOr<ResolvedOptions> resolved = ResolveOwnOptions(under_profile, *choice.model, profiles, limits);
  if (!resolved.ok()) return RenameField(resolved.status(), "options.extension.profile", "options.model");
  return resolved;
}

EmbedParams ToParams(const ResolvedOptions& options, std::vector<absl::StatusOr<Input>> inputs,
                     const LimitsConfig& limits, const CallContext& call) {
  return {.call = call,
          .inputs = std::move(inputs),
          .input_options = options.input,
          .vector_options = options.vector,
          .max_terms = options.max_terms,
          .priority = options.priority,
          .max_response_bytes = limits.max_response_bytes,
          .bits_per_component = BitsOf(options.encoding)};
}

absl::StatusOr<Input> ConvertInput(const v1::Input& input, const std::string& field, const SpanRequest& spans,
                                   const LimitsConfig& limits) {
  absl::StatusOr<std::vector<Range>> ranges = ConvertRanges(input, spans, field);
  if (!ranges.ok()) return ranges.status();
  if (input.ranges_size() > limits.max_vectors_per_call) {
    return TooManyVectorsInCall(input.ranges_size(), limits.max_vectors_per_call);
  }
  if (!input.has_text() && !input.has_token_ids()) return MissingContent(field);
  const auto& ids = input.token_ids().ids();
  Input converted = input.has_text()
                        ? Input(std::string_view(input.text()))
                        : Input(TokenIds{.ids = std::span<const uint32_t>(ids.data(), static_cast<size_t>(ids.size())),
                                         .complete = input.token_ids().complete()});
  converted.ranges = *std::move(ranges);
  return converted;
}

absl::StatusOr<std::vector<absl::StatusOr<Input>>> ConvertInputs(
    const google::protobuf::RepeatedPtrField<v1::Input>& inputs, const SpanRequest& spans, const LimitsConfig& limits,
    bool partial_results) {
  if (inputs.empty()) return NoInputs("inputs");
  if (inputs.size() > limits.max_inputs_per_call) {
    return TooManyInputs("inputs", inputs.size(), limits.max_inputs_per_call);
  }
  std::vector<absl::StatusOr<Input>> converted;
  converted.reserve(static_cast<size_t>(inputs.size()));
  int64_t ranges_in_all = 0;
  for (int i = 0; i < inputs.size(); ++i) {
    absl::StatusOr<Input> input = ConvertInput(inputs[i], absl::StrCat("inputs[", i, "]"), spans, limits);
    if (!input.ok() && !partial_results) return input.status();
    ranges_in_all += inputs[i].ranges_size();
    if (ranges_in_all > limits.max_vectors_per_call) {
      return TooManyVectorsInCall(ranges_in_all, limits.max_vectors_per_call);
    }
    converted.push_back(std::move(input));
  }
  return converted;
}

}  // namespace longembed
