#include "model/errors/errors.h"

#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace longembed {
namespace {

constexpr char kFieldPayload[] = "longembed/field";
constexpr char kReasonPayload[] = "longembed/reason";
constexpr char kDescriptionPayload[] = "longembed/description";

std::string Payload(const absl::Status& status, const char* key) {
  const auto payload = status.GetPayload(key);
  return payload.has_value() ? std::string(*payload) : std::string();
}

// gRPC limits all trailers together to 8 KiB. They hold the description percent-encoded, which takes up to three times
// as many bytes, and twice in base64. They hold the field once more.
constexpr size_t kMaxFieldBytes = 200, kMaxDescriptionBytes = 800;

// Truncates a description or a field. They may quote megabytes of a client's text or of a key of its JSON, and clients
// reject responses with so much metadata.
std::string Shortened(std::string_view text, size_t max_bytes) {
  constexpr std::string_view kCut = "...";
  if (text.size() <= max_bytes) return std::string(text);
  size_t end = max_bytes - kCut.size();  // Leaves room for kCut, so that truncating again changes nothing.
  const auto within_sequence = [&] { return (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80; };
  while (end > 0 && within_sequence()) --end;
  return std::string(text.substr(0, end)).append(kCut);
}

absl::Status Invalid(std::string_view field, std::string_view reason, std::string_view description) {
  return MakeError(absl::StatusCode::kInvalidArgument, field, reason, description);
}

}  // namespace

absl::Status MakeError(absl::StatusCode code, std::string_view field, std::string_view reason,
                       std::string_view description) {
  // Copies to std::string, because absl::string_view in Debian's absl is not std::string_view.
  const std::string where = Shortened(field, kMaxFieldBytes), why(reason),
                    what = Shortened(description, kMaxDescriptionBytes);
  absl::Status status(code, where.empty() ? what : absl::StrCat(where, ": ", what));
  status.SetPayload(kFieldPayload, absl::Cord(where));
  status.SetPayload(kReasonPayload, absl::Cord(why));
  status.SetPayload(kDescriptionPayload, absl::Cord(what));
  return status;
}

std::string ErrorField(const absl::Status& status) { return Payload(status, kFieldPayload); }
std::string ErrorReason(const absl::Status& status) { return Payload(status, kReasonPayload); }

namespace {

// Returns the error with another field. Keeps other payloads, such as a retry delay.
absl::Status WithField(const absl::Status& status, const std::string& field) {
  // Errors of absl itself have no description apart from their message.
  const bool has_description = status.GetPayload(kDescriptionPayload).has_value();
  const std::string description =
      has_description ? Payload(status, kDescriptionPayload) : std::string(status.message());
  absl::Status moved = MakeError(status.code(), field, ErrorReason(status), description);
  status.ForEachPayload([&moved](absl::string_view type, const absl::Cord& payload) {
    if (!moved.GetPayload(type).has_value()) moved.SetPayload(type, payload);
  });
  return moved;
}

}  // namespace

absl::Status AtField(const absl::Status& status, std::string_view parent) {
  std::string field = ErrorField(status);
  if (!absl::StartsWith(field, "options.")) {
    field = field.empty() ? std::string(parent) : absl::StrCat(std::string(parent), ".", field);
  }
  return WithField(status, field);
}

absl::Status RenameField(const absl::Status& status, std::string_view from, std::string_view to) {
  const std::string field = ErrorField(status);
  if (!absl::StartsWith(field, std::string(from))) return status;
  return WithField(status, absl::StrCat(std::string(to), field.substr(from.size())));
}

absl::Status EmptyInput() { return Invalid("", "EMPTY_INPUT", "is empty or has no tokens; at least 1 is needed"); }

absl::Status InvalidUtf8(std::string_view field, size_t byte) {
  return Invalid(field, "INVALID_UTF8", absl::StrCat("is not valid UTF-8, first at byte ", byte));
}

absl::Status TokenizerFailed(std::string_view what) {
  return Invalid("", "TOKENIZER_FAILED", absl::StrCat("cannot be tokenized: ", std::string(what)));
}

absl::Status QueryTooLong(int64_t tokens, int64_t capacity) {
  return Invalid("", "INPUT_TOO_LONG",
                 absl::StrCat("has ", tokens, " tokens (special tokens and prompt included); the limit of a query is ",
                              capacity, ". To cut it, set options.truncate END or START"));
}

absl::Status InputTooLong(int64_t tokens, int64_t capacity) {
  return Invalid(
      "", "INPUT_TOO_LONG",
      absl::StrCat(
          "has ", tokens, " tokens (special tokens and prompt included); the limit is ", capacity,
          ". To embed all of it, use windows (options.extension); to cut it, set options.truncate END or START"));
}

absl::Status CompleteIdsTooLong(int64_t tokens, int64_t capacity, std::string_view limit) {
  return Invalid("token_ids", "INPUT_TOO_LONG",
                 absl::StrCat("has ", tokens, " tokens; ", std::string(limit), " is ", capacity,
                              ". Complete ids are cut neither by truncation nor into windows, because only the "
                              "client knows their special tokens"));
}

absl::Status InputBeyondLimit(int64_t tokens, int64_t limit) {
  return Invalid("", "INPUT_BEYOND_SERVER_LIMIT",
                 absl::StrCat("has ", tokens, " tokens or more; this server takes at most ", limit));
}

absl::Status PromptTooLong(int64_t prompt_and_special_tokens, int64_t capacity) {
  return Invalid("", "PROMPT_TOO_LONG",
                 absl::StrCat("prompt and special tokens take ", prompt_and_special_tokens, " of ", capacity,
                              " tokens and leave no room for the text"));
}

absl::Status InputBeyondMaxTokens(int64_t tokens, int64_t max_tokens) {
  return Invalid("", "INPUT_TOO_LONG",
                 absl::StrCat("has ", tokens, " tokens (special tokens and prompt included); options.max_tokens is ",
                              max_tokens, ". To cut it, set options.truncate END or START"));
}

absl::Status PromptBeyondMaxTokens(int64_t prompt_and_special_tokens, int64_t max_tokens) {
  return Invalid("options.max_tokens", "PROMPT_TOO_LONG",
                 absl::StrCat("is ", max_tokens, "; prompt and special tokens alone take ", prompt_and_special_tokens,
                              " and must leave room for the text"));
}

absl::Status MaxTokensOutOfRange(int64_t max_tokens) {
  return Invalid("options.max_tokens", "MAX_TOKENS_OUT_OF_RANGE",
                 absl::StrCat("is ", max_tokens, "; it must be 1 to ", INT32_MAX));
}

absl::Status TokenIdOutOfRange(size_t index, int64_t id, int64_t vocabulary_size) {
  return Invalid(absl::StrCat("token_ids.ids[", index, "]"), "TOKEN_ID_OUT_OF_RANGE",
                 absl::StrCat("is ", id, "; the vocabulary has ids 0 to ", vocabulary_size - 1));
}

absl::Status NoSuchToken(std::string_view what) { return Invalid("", "TOKEN_ID_OUT_OF_RANGE", what); }

absl::Status UnknownPrompt(std::string_view field, std::string_view name, std::span<const std::string> known) {
  return Invalid(field, "UNKNOWN_PROMPT",
                 known.empty()
                     ? absl::StrCat("is \"", std::string(name), "\"; this model has no prompts")
                     : absl::StrCat("is \"", std::string(name), "\"; this model has: ", absl::StrJoin(known, ", ")));
}

absl::Status DimensionsOutOfRange(int64_t dimensions, int64_t hidden_size) {
  return Invalid("options.dimensions", "DIMENSIONS_OUT_OF_RANGE",
                 absl::StrCat("is ", dimensions, "; this model supports 1 to ", hidden_size));
}

absl::Status DimensionsNotTrained(int64_t dimensions, std::span<const int> trained) {
  return Invalid("options.dimensions", "DIMENSIONS_NOT_TRAINED",
                 absl::StrCat("is ", dimensions, "; this model is trained for ", absl::StrJoin(trained, ", "),
                              ". Set options.force_dimensions to cut its vectors anyway"));
}

absl::Status OutputNotAvailable(std::string_view output, std::string_view model,
                                std::span<const std::string> available) {
  return Invalid("options.output", "OUTPUT_NOT_AVAILABLE",
                 absl::StrCat("is ", std::string(output), ", which ", std::string(model),
                              " does not support; it supports: ", absl::StrJoin(available, ", ")));
}

absl::Status TokenPoolingOutOfRange(int64_t factor, int64_t max) {
  return Invalid("options.token_pooling", "TOKEN_POOLING_OUT_OF_RANGE",
                 absl::StrCat("is ", factor, "; it must be 1 to ", max));
}

absl::Status MaxTermsOutOfRange(int64_t max_terms, int64_t vocabulary_size) {
  return Invalid("options.max_terms", "MAX_TERMS_OUT_OF_RANGE",
                 absl::StrCat("is ", max_terms, "; it must be 1 to the vocabulary's ", vocabulary_size));
}

absl::Status MethodNotAvailable(std::string_view field, std::string_view model, std::string_view family,
                                std::span<const std::string> available) {
  return Invalid(field, "METHOD_NOT_AVAILABLE",
                 absl::StrCat("is not available for ", std::string(model), ", a model of family ", std::string(family),
                              "; its methods: ", absl::StrJoin(available, ", ")));
}

absl::Status ExtensionValueOutOfRange(std::string_view field, std::string_view value, std::string_view range) {
  return Invalid(field, "EXTENSION_VALUE_OUT_OF_RANGE",
                 absl::StrCat("is ", std::string(value), "; it must be ", std::string(range)));
}

absl::Status ExtensionConflict(std::string_view field, std::string_view what) {
  return Invalid(field, "EXTENSION_CONFLICT", what);
}

absl::Status WindowTooLarge(std::string_view field, int64_t tokens, int64_t capacity) {
  return Invalid(
      field, "WINDOW_TOO_LARGE",
      absl::StrCat("is ", tokens, "; with this positions method a window may have at most ", capacity, " tokens"));
}

absl::Status WindowBeyondServerLimit(std::string_view field, int64_t tokens, int64_t limit) {
  return Invalid(field, "WINDOW_TOO_LARGE",
                 absl::StrCat("is ", tokens, "; the server allows at most ", limit,
                              " tokens in one sequence (limits.max_tokens_per_sequence)"));
}

absl::Status WindowTooSmall(int64_t tokens, int64_t special_tokens) {
  return Invalid("windows.tokens", "WINDOW_TOO_SMALL",
                 absl::StrCat("is ", tokens, "; special tokens take ", special_tokens, ", so it must be at least ",
                              special_tokens + 1));
}

absl::Status OverlapTooLarge(std::string_view field, int64_t overlap, int64_t content) {
  return Invalid(field, "OVERLAP_TOO_LARGE",
                 absl::StrCat("is ", overlap, "; a window has room for ", content,
                              " content tokens besides special tokens and prompt, and the overlap must be smaller"));
}

absl::Status TooManyVectors(int64_t vectors, int64_t limit) {
  return Invalid("", "TOO_MANY_VECTORS",
                 absl::StrCat("would take ", vectors, " windows or spans; the limit is ", limit));
}

absl::Status TooManyRunTokens(int64_t tokens, int64_t limit) {
  return Invalid(
      "", "TOO_MANY_TOKENS",
      absl::StrCat("would run ", tokens,
                   " tokens through the model, including overlaps and the prompt of every window; the limit is ",
                   limit));
}

absl::Status TooManySpanTokens(int64_t tokens, int64_t limit) {
  return Invalid("", "TOO_MANY_TOKENS",
                 absl::StrCat("has spans of ", tokens, " tokens together, overlaps included; the limit is ", limit));
}

absl::Status NoSpanWithTokens() {
  return Invalid("", "NO_SPANS", "has no span with a token in it; at least 1 is needed");
}

absl::Status SpanOutOfRange(size_t index, int64_t start, int64_t end, std::string_view what, int64_t size) {
  return Invalid(absl::StrCat("ranges[", index, "]"), "SPAN_OUT_OF_RANGE",
                 absl::StrCat("is [", start, ", ", end, "); it needs start < end <= ", size, " ", std::string(what)));
}

absl::Status SpanEmpty(size_t index) {
  return Invalid(absl::StrCat("ranges[", index, "]"), "SPAN_EMPTY", "covers no token");
}

absl::Status SpanTruncated(size_t index) {
  return Invalid(absl::StrCat("ranges[", index, "]"), "SPAN_TRUNCATED", "was cut away by truncation");
}

absl::Status SentencesNeedText() {
  return Invalid("token_ids", "SENTENCES_NEED_TEXT",
                 "has no sentences; send text, or set options.spans to ranges or every_tokens");
}

absl::Status EveryTokensTooFew(int64_t tokens) {
  return Invalid("options.spans.every_tokens.tokens", "SPAN_TOO_SHORT",
                 absl::StrCat("is ", tokens, "; it must be at least 1"));
}

absl::Status Misplaced(std::string_view field, std::string_view needs) {
  return Invalid(field, "MISPLACED_FIELD", absl::StrCat("is set, but needs ", std::string(needs)));
}

absl::Status UnusableVector() {
  return MakeError(absl::StatusCode::kInternal, "", "UNUSABLE_VECTOR",
                   "the model produced a vector that is zero or not finite");
}

absl::Status ComponentBeyondEncoding(float component, float limit) {
  return Invalid("options.encoding", "COMPONENT_BEYOND_ENCODING",
                 absl::StrCat("represents numbers below ", limit, ", but a component of the vector is ", component,
                              "; use FLOAT32, or set options.normalize"));
}

absl::Status EncoderCancelled() {
  return MakeError(absl::StatusCode::kCancelled, "", "CANCELLED", "every call of this batch was cancelled or is late");
}

absl::Status EncoderOutOfMemory(std::string_view what) {
  return MakeError(absl::StatusCode::kResourceExhausted, "", "OUT_OF_MEMORY",
                   absl::StrCat("encoder: ", std::string(what)));
}

absl::Status EncoderFailed(std::string_view what) {
  return MakeError(absl::StatusCode::kInternal, "", "ENCODER_FAILED", absl::StrCat("encoder: ", std::string(what)));
}

absl::Status PrecisionUnavailable(std::string_view precision, std::string_view why) {
  return MakeError(absl::StatusCode::kFailedPrecondition, "precision", "PRECISION_UNAVAILABLE",
                   absl::StrCat("is ", std::string(precision), ", but ", std::string(why)));
}

absl::Status ModelDirectoryError(std::string_view path, std::string_view what) {
  return MakeError(absl::StatusCode::kFailedPrecondition, "", "MODEL_DIRECTORY",
                   absl::StrCat(std::string(path), ": ", std::string(what)));
}

}  // namespace longembed
