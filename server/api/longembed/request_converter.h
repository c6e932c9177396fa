// Converts requests of longembed.v1 to the core's types. Checks every field that a request may set. Pure functions
// that any thread can call.
#ifndef LONGEMBED_SERVER_API_LONGEMBED_REQUEST_CONVERTER_H_
#define LONGEMBED_SERVER_API_LONGEMBED_REQUEST_CONVERTER_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "longembed/v1/embedding.pb.h"
#include "server/api/longembed/extension_converter.h"
#include "server/config/config.h"
#include "server/core/embed_call.h"
#include "server/core/model_choice.h"
#include "server/core/served_model.h"

namespace longembed {

// The options of a request, checked against the model and resolved.
struct ResolvedOptions {
  InputOptions input;
  VectorOptions vector;
  Priority priority = Priority::kInteractive;
  v1::EmbedOptions::Encoding encoding = v1::EmbedOptions::FLOAT32;
  bool several_vectors = false;      // One vector for each window or span, with its range.
  std::optional<int64_t> max_terms;  // For sparse vectors.
  int sparse_dimensions = 0;         // For sparse vectors; 0: the vectors are dense.
  std::string recipe;
};

// Returns the server's limits for the plan of one call.
PlanLimits ToPlanLimits(const LimitsConfig& limits);

// Checks and resolves the options. `choice` is the model that options.model names; if the name is an alias, its profile
// is the request's extension. Errors (INVALID_ARGUMENT): those of ResolvePrompt, ResolveExtension, CheckWindowSize and
// ResolveDimensions, UNKNOWN_ENUM_VALUE, MISPLACED_FIELD, EXTENSION_CONFLICT, OUTPUT_NOT_AVAILABLE, NOT_WITH_SPARSE,
// NO_SPANS, SPAN_TOO_SHORT, PROMPT_TOO_LONG, TOKEN_POOLING_OUT_OF_RANGE, MAX_TERMS_OUT_OF_RANGE,
// MAX_TOKENS_OUT_OF_RANGE, INPUT_TYPE_NEEDED.
absl::StatusOr<ResolvedOptions> ResolveOptions(const v1::EmbedOptions& options, const ModelChoice& choice,
                                               const Profiles& profiles, const LimitsConfig& limits);

// Returns the parameters of `call` with these options.
EmbedParams ToParams(const ResolvedOptions& options, std::vector<absl::StatusOr<Input>> inputs,
                     const LimitsConfig& limits, const CallContext& call);

// Converts one input. Errors name it as `field`, and are those of ConvertInputs for one input.
absl::StatusOr<Input> ConvertInput(const v1::Input& input, const std::string& field, const SpanRequest& spans,
                                   const LimitsConfig& limits);

// Converts the inputs to views of the messages, which must outlive them. With partial_results an input's error takes
// the input's place. Errors (INVALID_ARGUMENT): NO_INPUTS, TOO_MANY_INPUTS, TOO_MANY_VECTORS for ranges, and without
// partial_results those of an input: MISSING_CONTENT, MISPLACED_FIELD, NO_RANGES, SPAN_OUT_OF_RANGE.
absl::StatusOr<std::vector<absl::StatusOr<Input>>> ConvertInputs(
    const google::protobuf::RepeatedPtrField<v1::Input>& inputs, const SpanRequest& spans, const LimitsConfig& limits,
    bool partial_results);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_API_LONGEMBED_REQUEST_CONVERTER_H_
