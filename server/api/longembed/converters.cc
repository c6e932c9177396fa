#include "server/api/longembed/converters.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"
#include "model/text/prompt.h"
#include "model/text/utf8.h"
#include "model/vector/encoding.h"
#include "model/vector/token_pooling.h"
#include "server/core/recipe.h"
#include "server/errors/errors.h"
#include "server/errors/rpc_status.h"
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
                         "leave it out: weights of windows become one by their maximum");
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
                     "), which goes with options.output WINDOW_VECTORS alone, not with ",
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

v1::Model::Pooling ConvertPooling(Pooling pooling) {
  switch (pooling) {
    case Pooling::kMean:
      return v1::Model::MEAN;
    case Pooling::kCls:
      return v1::Model::CLS;
    case Pooling::kLast:
      return v1::Model::LAST;
    case Pooling::kNone:
      return v1::Model::NONE;
  }
  return v1::Model::POOLING_UNKNOWN;
}

void FillRange(Range range, v1::Range& message) {
  message.set_start(static_cast<uint32_t>(range.start));
  message.set_end(static_cast<uint32_t>(range.end));
}

// Returns for each byte how many code points begin before it.
std::vector<uint32_t> CodePointsBefore(std::string_view text) {
  std::vector<uint32_t> before(text.size() + 1);
  uint32_t count = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    before[i] = count;
    if (!IsContinuationByte(text[i])) ++count;
  }
  before[text.size()] = count;
  return before;
}

absl::Status AddToken(const Tokenizer& tokenizer, int32_t id, bool special, v1::Token& token) {
  absl::StatusOr<std::string> text = tokenizer.TokenText(id);
  if (!text.ok()) return text.status();
  token.set_id(static_cast<uint32_t>(id));
  token.set_text(*std::move(text));
  token.set_special(special);
  return absl::OkStatus();
}

}  // namespace

PlanLimits ToPlanLimits(const LimitsConfig& limits) {
  return {.max_tokens = limits.max_tokens_per_input,
          .max_sequence_tokens = limits.max_tokens_per_sequence,
          .max_run_tokens = limits.max_run_tokens_per_call,
          .max_vectors = limits.max_vectors_per_call};
}

namespace {

absl::StatusOr<std::string> PromptOf(const EmbedOptions& options, const ModelManifest& model,
                                     const LimitsConfig& limits) {
  if (const auto bytes = static_cast<int64_t>(options.prompt().size()); bytes > limits.max_prompt_bytes) {
    return PromptTooLarge(bytes, limits.max_prompt_bytes);
  }
  return ResolvePrompt(model, ConvertPrompt(options));
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
  if (!options.extension().windows().has_tokens()) FitWindows(model, limits.max_tokens_per_sequence, *extension);
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
  DimensionOptions dimension_options{.force = options.force_dimensions()};
  if (options.has_dimensions()) dimension_options.dimensions = options.dimensions();
  const absl::StatusOr<int> dimensions = ResolveDimensions(dimension_options, model.trained_dimensions);
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
                     .vector_per_window = *output == EmbedOptions::WINDOW_VECTORS};
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
                                   .dimensions = *dimensions,
                                   .normalize = resolved.vector.normalize,
                                   .sparse = sparse,
                                   .max_terms = resolved.max_terms,
                                   .token_pooling = pooling,
                                   .encoding = EmbedOptions::Encoding_Name(options.encoding()),
                                   .precision = served.encoder().precision()});
  return resolved;
}

}  // namespace

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

namespace {

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
      return AtField(SpanOutOfRange(ranges.size(), range.start(), range.end(), "at the very most", INT32_MAX), parent);
    }
    ranges.push_back({static_cast<int32_t>(range.start()), static_cast<int32_t>(range.end())});
  }
  return ranges;
}

}  // namespace

namespace {

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

void FillEmbedding(const std::vector<float>& vector, EmbedOptions::Encoding encoding, v1::Embedding& embedding) {
  embedding.set_dimensions(static_cast<uint32_t>(vector.size()));
  switch (encoding) {
    case EmbedOptions::FLOAT16:
      embedding.set_packed(PackFloat16(vector));
      return;
    case EmbedOptions::BFLOAT16:
      embedding.set_packed(PackBfloat16(vector));
      return;
    case EmbedOptions::INT8: {
      Int8Vector packed = PackInt8(vector);
      embedding.set_packed(std::move(packed.bytes));
      embedding.set_scale(packed.scale);
      return;
    }
    case EmbedOptions::BINARY:
      embedding.set_packed(PackBinary(vector));
      return;
    default:
      embedding.mutable_values()->Add(vector.begin(), vector.end());
  }
}

void FillResult(const absl::StatusOr<EmbeddedInput>& input, const ResolvedOptions& options, v1::EmbedResult& result) {
  if (!input.ok()) {
    *result.mutable_error() = ToRpcStatus(input.status());
    return;
  }
  for (const OutputVector& vector : input->vectors) {
    v1::Embedding& embedding = *result.add_embeddings();
    FillEmbedding(vector.values, options.encoding, embedding);
    if (options.sparse_dimensions > 0) {
      embedding.set_dimensions(static_cast<uint32_t>(options.sparse_dimensions));
      embedding.mutable_indices()->mutable_ids()->Add(vector.indices.begin(), vector.indices.end());
    }
    if (!options.several_vectors) continue;
    FillRange(vector.content, *embedding.mutable_range());
  }
  result.set_tokens(static_cast<uint32_t>(input->plan.tokens));
  result.set_truncated_tokens(static_cast<uint32_t>(input->plan.truncated_tokens));
  result.set_truncated_tokens_estimated(input->plan.estimated);
  for (const PlannedSequence& planned : input->plan.sequences) FillSequence(planned, *result.add_sequences());
}

void FillTiming(const EmbedAnswer& answer, absl::Duration total, v1::Timing& timing) {
  const auto fill = [](absl::Duration duration, google::protobuf::Duration& message) {
    absl::Duration rest;
    message.set_seconds(absl::IDivDuration(duration, absl::Seconds(1), &rest));
    message.set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(rest)));
  };
  fill(answer.tokenization, *timing.mutable_tokenization());
  fill(answer.queue, *timing.mutable_queue());
  fill(answer.inference, *timing.mutable_inference());
  fill(total, *timing.mutable_total());
}

void FillExplanation(const Plan& plan, const VectorOptions& options, const ModelManifest& model,
                     v1::ExplainResult& result) {
  result.set_tokens(static_cast<uint32_t>(plan.tokens));
  result.set_truncated_tokens(static_cast<uint32_t>(plan.truncated_tokens));
  result.set_capacity(static_cast<uint32_t>(plan.capacity));
  for (const PlannedSequence& planned : plan.sequences) FillSequence(planned, *result.add_sequences());
  const Cost cost = EstimateCost(model, plan);
  result.mutable_cost()->set_tokens(static_cast<uint64_t>(cost.tokens));
  result.mutable_cost()->set_attention_pairs(static_cast<uint64_t>(cost.attention_pairs));
  result.mutable_cost()->set_gflop(cost.gflop);
  if (!options.windows.vectors.has_value()) return;
  for (const Range range : RangesOfVectors(plan, options)) FillRange(range, *result.add_vectors());
}

void FillModel(const ServedModel& served, const Profiles& profiles, const LimitsConfig& limits, v1::Model& model) {
  const ModelManifest& manifest = served.model().manifest;
  model.set_name(served.name());
  model.set_architecture(manifest.architecture);
  model.set_family(manifest.family == Family::kApe ? v1::Model::APE : v1::Model::ROPE);
  model.set_trained_window(static_cast<uint32_t>(manifest.trained_window));
  model.set_trained_window_source(manifest.trained_window_source);
  model.set_plain_limit(static_cast<uint32_t>(manifest.plain_limit));
  for (const std::string& name : OutputsOf(manifest)) {
    v1::EmbedOptions::Output output = v1::EmbedOptions::ONE_VECTOR;
    if (v1::EmbedOptions::Output_Parse(name, &output)) model.add_outputs(output);
  }
  const bool sparse = manifest.sparse_head != SparseHeadKind::kNone, tokens = manifest.token_vectors.has_value();
  const bool dense = manifest.pooling != Pooling::kNone || tokens;
  model.set_dimensions(static_cast<uint32_t>(dense ? manifest.vector_size : 0));
  if (tokens) model.set_max_query_tokens(static_cast<uint32_t>(manifest.token_vectors->query_tokens));
  model.set_sparse_dimensions(static_cast<uint32_t>(sparse ? manifest.vocabulary_size : 0));
  model.set_rotary_base(manifest.rotary_base);
  if (manifest.family == Family::kRope) model.set_rotary_factor(manifest.rotary_factor);
  if (manifest.rotary_scaling.has_value()) model.set_rotary_scaling(manifest.rotary_scaling->kind);
  for (const int dimensions : manifest.trained_dimensions) {
    if (dense) model.add_trained_dimensions(static_cast<uint32_t>(dimensions));
  }
  model.set_pooling(ConvertPooling(manifest.pooling));
  model.mutable_prompts()->insert(manifest.prompts.begin(), manifest.prompts.end());
  model.mutable_input_types()->insert(manifest.input_types.begin(), manifest.input_types.end());
  model.set_default_prompt_name(manifest.default_prompt_name);
  model.set_similarity_function(manifest.similarity_function);
  model.set_add_eos_token(manifest.add_eos_token);
  for (const std::string& method : MethodsOf(manifest)) model.add_methods(method);
  for (std::string& name : ProfilesOf(manifest, profiles)) model.add_profiles(std::move(name));
  for (std::string& alias : AliasesOf(served, profiles)) model.add_aliases(std::move(alias));
  FillRecommendations(manifest, model);
  model.mutable_limits()->set_max_inputs(static_cast<uint32_t>(limits.max_inputs_per_call));
  model.mutable_limits()->set_max_tokens_per_input(static_cast<uint32_t>(limits.max_tokens_per_input));
  model.mutable_limits()->set_max_vectors_per_call(static_cast<uint32_t>(limits.max_vectors_per_call));
  model.mutable_limits()->set_max_run_tokens_per_call(static_cast<uint32_t>(limits.max_run_tokens_per_call));
  model.mutable_limits()->set_max_tokens_per_sequence(static_cast<uint32_t>(limits.max_tokens_per_sequence));
  model.mutable_limits()->set_max_prompt_bytes(static_cast<uint32_t>(limits.max_prompt_bytes));
  model.mutable_limits()->set_max_request_bytes(static_cast<uint64_t>(limits.max_request_bytes));
  model.mutable_limits()->set_max_response_bytes(static_cast<uint64_t>(limits.max_response_bytes));
  model.mutable_limits()->set_max_streamed_text_bytes(static_cast<uint64_t>(MaxStreamedTextBytes(limits)));
  model.set_precision(PrecisionName(served.encoder().precision()));
  if (const std::optional<PrecisionReport>& report = served.precision_report(); report.has_value()) {
    model.mutable_precision_check()->set_lowest_cosine(report->lowest_cosine);
    model.mutable_precision_check()->set_mean_cosine(report->mean_cosine);
    model.mutable_precision_check()->set_texts(static_cast<uint32_t>(report->texts));
  }
  model.set_device(served.encoder().device());
  model.set_engine(served.encoder().engine());
  model.set_kernels(served.encoder().kernels());
  model.mutable_file_sha256()->insert(manifest.file_sha256.begin(), manifest.file_sha256.end());
  model.set_source(manifest.source);
  model.set_license(manifest.license);
}

absl::Status FillTokens(const Model& model, const std::string& text, bool add_special_tokens, int64_t limit,
                        absl::FunctionRef<absl::Status(int64_t tokens)> hold, v1::TokenizedText& result) {
  const absl::StatusOr<TokenizedText> tokens = model.tokenizer->Tokenize(text, limit);
  if (!tokens.ok()) return tokens.status();
  if (const auto count = static_cast<int64_t>(tokens->ids.size()); count > limit) return TooManyTokens(count, limit);
  RETURN_IF_ERROR(hold(static_cast<int64_t>(tokens->ids.size())));
  const auto add_specials = [&](const std::vector<int32_t>& ids) -> absl::Status {
    if (!add_special_tokens) return absl::OkStatus();
    for (const int32_t id : ids) {
      RETURN_IF_ERROR(AddToken(*model.tokenizer, id, true, *result.add_tokens()));
    }
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(add_specials(model.manifest.special_prefix));
  const std::vector<uint32_t> code_points = CodePointsBefore(text);
  for (size_t i = 0; i < tokens->ids.size(); ++i) {
    v1::Token& token = *result.add_tokens();
    RETURN_IF_ERROR(AddToken(*model.tokenizer, tokens->ids[i], false, token));
    token.mutable_range()->set_start(code_points[tokens->ranges[i].begin]);
    token.mutable_range()->set_end(code_points[tokens->ranges[i].end]);
  }
  return add_specials(model.manifest.special_suffix);
}

}  // namespace longembed
