#include "server/errors/errors.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/errors/errors.h"

namespace longembed {
namespace {

constexpr char kRetryPayload[] = "longembed/retry";

absl::Status Invalid(std::string_view field, std::string_view reason, std::string_view description) {
  return MakeError(absl::StatusCode::kInvalidArgument, field, reason, description);
}

}  // namespace

std::optional<absl::Duration> RetryDelay(const absl::Status& status) {
  const auto payload = status.GetPayload(kRetryPayload);
  absl::Duration delay;
  if (!payload.has_value() || !absl::ParseDuration(std::string(*payload), &delay)) return std::nullopt;
  return delay;
}

namespace {

std::string Readable(absl::Duration duration) {
  return absl::FormatDuration(absl::Trunc(duration, absl::Milliseconds(1)));
}

// Returns an overload error. Its retry delay distinguishes it from limits of the transport.
absl::Status Exhausted(std::string_view reason, const std::string& description, absl::Duration retry_delay) {
  absl::Status status = MakeError(absl::StatusCode::kResourceExhausted, "", reason,
                                  absl::StrCat(description, "; try again in ", Readable(retry_delay)));
  status.SetPayload(kRetryPayload, absl::Cord(absl::FormatDuration(retry_delay)));
  return status;
}

}  // namespace

absl::Duration RetryDelayFor(absl::Duration wait) {
  return std::clamp(wait, absl::Milliseconds(50), absl::Seconds(60));
}

absl::Status Overloaded(Overload reason, const OverloadDetails& details, absl::Duration retry_delay) {
  switch (reason) {
    case Overload::kQueueTokens:
      return Exhausted(
          "QUEUE_TOKENS",
          absl::StrCat("the queue holds ", details.queued_tokens, " of at most ", details.max_queued_tokens, " tokens"),
          retry_delay);
    case Overload::kQueueWait:
      return Exhausted("QUEUE_WAIT",
                       absl::StrCat("the expected wait is about ", Readable(details.expected_wait), "; the limit is ",
                                    Readable(details.max_wait)),
                       retry_delay);
    case Overload::kClientShare:
      return Exhausted("CLIENT_SHARE",
                       absl::StrCat("this client holds its share of the queue (", details.queued_tokens, " of at most ",
                                    details.max_queued_tokens, " tokens are taken, the wait is about ",
                                    Readable(details.expected_wait), " of at most ", Readable(details.max_wait), ")"),
                       retry_delay);
    case Overload::kClientLimit:
      return Exhausted("CLIENT_LIMIT",
                       absl::StrCat("this client's key allows ", details.max_client_tokens, " waiting tokens"),
                       retry_delay);
    case Overload::kDeadline:
      return Exhausted("DEADLINE_TOO_SHORT",
                       absl::StrCat("the call would be done in about ", Readable(details.expected_wait),
                                    ", but its deadline is in ", Readable(details.max_wait)),
                       retry_delay);
  }
  return absl::InternalError("unknown overload");
}

absl::Status TooManyPendingBytes(int64_t bytes, int64_t limit, absl::Duration retry_delay) {
  return Exhausted("PENDING_BYTES", absl::StrCat("calls hold ", bytes, " of at most ", limit, " bytes of memory"),
                   retry_delay);
}

absl::Status TooManyPendingBytesOfClient(int64_t bytes, int64_t limit, absl::Duration retry_delay) {
  return Exhausted(
      "CLIENT_PENDING_BYTES",
      absl::StrCat("this client's calls hold ", bytes, " of at most ", limit, " bytes of memory, which is its share"),
      retry_delay);
}

absl::Status TooManyWatches(int64_t limit) {
  return Exhausted("HEALTH_WATCHES", absl::StrCat(limit, " Health.Watch calls are open, which is the limit"),
                   absl::Seconds(10));
}

absl::Status TooManyWatchesOfClient(int64_t watches, int64_t limit) {
  return Exhausted(
      "HEALTH_WATCHES",
      absl::StrCat("this client has ", watches, " Health.Watch calls open, which is its share of the limit of ", limit),
      absl::Seconds(10));
}

absl::Status TooManyConcurrentCalls(int64_t calls, int64_t limit, absl::Duration retry_delay) {
  return Exhausted("CONCURRENT_CALLS",
                   absl::StrCat("this client has ", calls, " calls without an answer; its key allows ", limit),
                   retry_delay);
}

absl::Status ServerOutOfMemory(const std::string& what) { return Exhausted("OUT_OF_MEMORY", what, absl::Seconds(1)); }

bool IsOutOfMemory(const absl::Status& status) { return ErrorReason(status) == "OUT_OF_MEMORY"; }

std::string OverloadLabel(const absl::Status& status) {
  return RetryDelay(status).has_value() ? absl::AsciiStrToLower(ErrorReason(status)) : "";
}

absl::Status MissingApiKey() {
  return MakeError(absl::StatusCode::kUnauthenticated, "", "MISSING_API_KEY",
                   "an API key is required: send the header \"authorization: Bearer KEY\"");
}

absl::Status UnknownApiKey() {
  return MakeError(absl::StatusCode::kUnauthenticated, "", "UNKNOWN_API_KEY", "the API key is unknown");
}

absl::Status NotServing() {
  return MakeError(absl::StatusCode::kUnavailable, "", "NOT_SERVING",
                   "the server is not serving; try again later, or another replica");
}

absl::Status ServerDraining() {
  return MakeError(absl::StatusCode::kUnavailable, "", "DRAINING", "the server is shutting down; try another replica");
}

absl::Status StreamTooOld(absl::Duration max_age) {
  return MakeError(absl::StatusCode::kUnavailable, "", "STREAM_TOO_OLD",
                   absl::StrCat("a stream may last for connections.max_age, which is ", absl::FormatDuration(max_age),
                                "; continue on another one, which may reach another replica"));
}

absl::Status EncoderHangs(std::string_view model) {
  return MakeError(absl::StatusCode::kUnavailable, "", "ENCODER_HANGS",
                   absl::StrCat("the encoder of ", std::string(model), " hangs; try another replica"));
}

absl::Status DeadlineExceeded() {
  return MakeError(absl::StatusCode::kDeadlineExceeded, "", "DEADLINE_EXCEEDED",
                   "the deadline passed before the work was done");
}

absl::Status CallCancelled() {
  return MakeError(absl::StatusCode::kCancelled, "", "CANCELLED", "the call was cancelled");
}

absl::Status NotOffered(std::string_view what) {
  return MakeError(absl::StatusCode::kUnimplemented, "", "NOT_OFFERED",
                   absl::StrCat("this server embeds texts; it has no ", std::string(what)));
}

absl::Status UnknownMethod(std::string_view path) {
  return MakeError(absl::StatusCode::kUnimplemented, "", "UNKNOWN_METHOD",
                   absl::StrCat("this server has no method ", std::string(path),
                                "; when it starts, its log names the APIs that it serves"));
}

absl::Status UnknownModel(std::string_view field, std::string_view name, std::span<const std::string> known) {
  return MakeError(absl::StatusCode::kNotFound, field, "UNKNOWN_MODEL",
                   absl::StrCat("is \"", std::string(name), "\"; this server has: ", absl::StrJoin(known, ", ")));
}

absl::Status UnknownProfileOfModel(std::string_view field, std::string_view model, std::string_view profile,
                                   std::span<const std::string> known) {
  const std::string asked = absl::StrCat("is \"", std::string(model), ":", std::string(profile), "\"; the model ",
                                         std::string(model), " has ");
  return MakeError(absl::StatusCode::kNotFound, field, "UNKNOWN_PROFILE",
                   known.empty() ? absl::StrCat(asked, "no profiles")
                                 : absl::StrCat(asked, "the profiles: ", absl::StrJoin(known, ", ")));
}

absl::Status ModelNotNamed(std::string_view field, std::span<const std::string> known) {
  return Invalid(
      field, "MODEL_NOT_NAMED",
      absl::StrCat("is empty, which only a server with one model allows; this one has: ", absl::StrJoin(known, ", ")));
}

absl::Status NoInputs(std::string_view field) { return Invalid(field, "NO_INPUTS", "is empty; at least 1 is needed"); }

absl::Status TooManyInputs(std::string_view field, int64_t count, int64_t limit) {
  return Invalid(field, "TOO_MANY_INPUTS", absl::StrCat("has ", count, " entries; the limit per call is ", limit));
}

absl::Status TooManyVectorsInCall(int64_t vectors, int64_t limit) {
  return Invalid("inputs", "TOO_MANY_VECTORS",
                 absl::StrCat("have ", vectors, " windows or spans together; the limit per call is ", limit));
}

absl::Status TooManyRunTokensInCall(int64_t tokens, int64_t limit) {
  return Invalid("inputs", "TOO_MANY_TOKENS",
                 absl::StrCat("would run ", tokens, " tokens through the model; the limit per call is ", limit));
}

absl::Status TooManySpanTokensInCall(int64_t tokens, int64_t limit) {
  return Invalid(
      "inputs", "TOO_MANY_TOKENS",
      absl::StrCat("has spans of ", tokens, " tokens together, overlaps included; the limit per call is ", limit));
}

absl::Status TooManyTokens(int64_t tokens, int64_t limit) {
  return Invalid(
      "", "TOO_MANY_TOKENS",
      absl::StrCat("has ", tokens, " tokens or more; the server's limit per call leaves ", limit, " for this text"));
}

absl::Status PromptTooLarge(int64_t bytes, int64_t limit) {
  return Invalid("options.prompt", "PROMPT_TOO_LONG",
                 absl::StrCat("has ", bytes, " bytes; the limit of this server is ", limit));
}

absl::Status UnknownProfile(std::string_view field, std::string_view name, std::span<const std::string> known) {
  return Invalid(field, "UNKNOWN_PROFILE",
                 known.empty()
                     ? absl::StrCat("is \"", std::string(name), "\"; this server has no profiles")
                     : absl::StrCat("is \"", std::string(name), "\"; this server has: ", absl::StrJoin(known, ", ")));
}

absl::Status ProfileDoesNotFit(std::string_view field, std::string_view name, const absl::Status& reason) {
  return Invalid(field, ErrorReason(reason),
                 absl::StrCat("this model does not support the profile \"", std::string(name),
                              "\": ", std::string(reason.message())));
}

absl::Status ExtensionBesideAlias(std::string_view alias_field, std::string_view profile) {
  return Invalid("options.extension", "EXTENSION_CONFLICT",
                 absl::StrCat("contradicts ", std::string(alias_field), ", which names the profile \"",
                              std::string(profile), "\"; leave one of them out"));
}

absl::Status RequestTooLarge(uint64_t bytes, int64_t limit) {
  return Invalid("", "REQUEST_TOO_LARGE", absl::StrCat("the request has ", bytes, " bytes; the limit is ", limit));
}

absl::Status ResponseTooLarge(int64_t bytes, int64_t limit) {
  return Invalid("inputs", "RESPONSE_TOO_LARGE",
                 absl::StrCat("would be answered with ", bytes, " bytes of vectors; the limit per call is ", limit));
}

absl::Status AnswerTooLarge(std::string_view field, int64_t bytes, int64_t limit) {
  return Invalid(field, "RESPONSE_TOO_LARGE",
                 absl::StrCat("the answer would have ", bytes, " bytes; the limit per answer is ", limit));
}

absl::Status JsonAnswerTooLarge(int64_t limit) {
  return Invalid("", "RESPONSE_TOO_LARGE",
                 absl::StrCat("the answer would have more than ", limit, " bytes as JSON, the limit per answer"));
}

absl::Status TooManyElements(std::string_view field, int64_t count, int64_t limit) {
  return Invalid(field, "TOO_MANY_ELEMENTS", absl::StrCat("has ", count, " elements; the limit is ", limit));
}

absl::Status MalformedRequest(std::string_view message_type) {
  return Invalid("", "MALFORMED_REQUEST", absl::StrCat("the request is not a well-formed ", std::string(message_type)));
}

absl::Status UnknownFieldNumber(std::string_view path, int number) {
  return Invalid(path, "UNKNOWN_FIELD",
                 absl::StrCat(path.empty() ? "the request has" : "has", " a field number ", number,
                              " that this version of the server does not know, or knows with another type"));
}

absl::Status UnknownEnumValue(std::string_view field, int value) {
  return Invalid(field, "UNKNOWN_ENUM_VALUE", absl::StrCat("is ", value, ", which is unknown in this version"));
}

absl::Status MissingContent(std::string_view field) {
  return Invalid(field, "MISSING_CONTENT", "has neither text nor token_ids");
}

absl::Status NoRanges(std::string_view field) {
  return Invalid(field, "NO_RANGES", "is empty; options.spans.ranges needs at least 1 range per input");
}

absl::Status WindowVectorsNeedWindows() {
  return Invalid("options.output", "MISPLACED_FIELD", "is WINDOW_VECTORS, which needs options.extension.windows");
}

absl::Status NoSpansNamed() {
  return Invalid("options.spans", "NO_SPANS",
                 "is empty; options.output SPAN_VECTORS needs one of ranges, sentences and every_tokens");
}

absl::Status InputTypeNeeded() {
  return Invalid("options.input_type", "INPUT_TYPE_NEEDED",
                 "is neither QUERY nor DOCUMENT; options.output TOKEN_VECTORS needs one of them, or its prompt_name");
}

absl::Status NotWithSparse(std::string_view field, std::string_view value, std::string_view instead) {
  return Invalid(field, "NOT_WITH_SPARSE",
                 absl::StrCat("is ", std::string(value), ", which options.output SPARSE does not support; ",
                              std::string(instead)));
}

absl::Status MalformedJson(int64_t byte, int64_t bytes) {
  const std::string where = byte > bytes ? absl::StrCat("it ends too early, after ", bytes, " bytes")
                                         : absl::StrCat("at byte ", byte, " of ", bytes);
  return Invalid("", "MALFORMED_JSON", absl::StrCat("the body is not JSON: ", where));
}

absl::Status JsonNumberTooLarge() {
  return Invalid("", "MALFORMED_JSON", "the body has a number beyond the range of a double");
}

absl::Status JsonTooDeep(int depth, int limit) {
  return Invalid("", "JSON_TOO_DEEP", absl::StrCat("the body nests ", depth, " levels deep; the limit is ", limit));
}

absl::Status DuplicateField(std::string_view field) {
  return Invalid(field, "DUPLICATE_FIELD", "appears twice in one object");
}

absl::Status UnknownField(std::string_view field, std::span<const std::string> known) {
  return Invalid(field, "UNKNOWN_FIELD",
                 absl::StrCat("is not a field of this request; it has ", absl::StrJoin(known, ", ")));
}

absl::Status WrongJsonType(std::string_view field, std::string_view expected, std::string_view found) {
  return Invalid(field, "WRONG_TYPE", absl::StrCat("must be ", std::string(expected), "; it is ", std::string(found)));
}

absl::Status WrongJsonValue(std::string_view field, std::string_view what) {
  return Invalid(field, "WRONG_TYPE", what);
}

absl::Status MissingField(std::string_view field) { return Invalid(field, "MISSING_FIELD", "is missing"); }

absl::Status ForeignTokens(std::string_view field, std::span<const int32_t> prefix, std::span<const int32_t> suffix) {
  return Invalid(field, "FOREIGN_TOKENS",
                 absl::StrCat("token ids must be those of the model's own tokenizer with its special tokens: first [",
                              absl::StrJoin(prefix, ", "), "], last [", absl::StrJoin(suffix, ", "),
                              "]; send text instead (LangChain: check_embedding_ctx_length=False)"));
}

absl::Status MalformedHttp(std::string_view what) {
  return Invalid("", "MALFORMED_HTTP", absl::StrCat("the request is not well-formed HTTP: ", std::string(what)));
}

absl::Status HeaderTooLarge(int64_t limit) {
  return Invalid("", "HEADER_TOO_LARGE", absl::StrCat("the request's header is larger than ", limit, " bytes"));
}

absl::Status RequestTooSlow(absl::Duration limit) {
  return Invalid("", "REQUEST_TOO_SLOW",
                 absl::StrCat("the request is too slow: its header, and each 16 KiB of its body, must arrive within ",
                              Readable(limit)));
}

absl::Status NotJson(std::string_view content_type) {
  const std::string found = content_type.empty() ? "missing" : absl::StrCat("\"", std::string(content_type), "\"");
  return Invalid("", "NOT_JSON", absl::StrCat("Content-Type is ", found, "; it must be application/json"));
}

absl::Status CompressedRequest(std::string_view encoding) {
  return Invalid("", "COMPRESSED_REQUEST",
                 absl::StrCat("Content-Encoding is \"", std::string(encoding), "\"; send the body uncompressed"));
}

absl::Status BadTimeout(std::string_view value) {
  return Invalid(
      "", "BAD_TIMEOUT",
      absl::StrCat("X-Request-Timeout is \"", std::string(value), "\"; it must be a number of seconds above 0"));
}

absl::Status MethodNotAllowed(std::string_view method, std::string_view path, std::string_view allowed) {
  return Invalid("", "METHOD_NOT_ALLOWED",
                 absl::StrCat(std::string(path), " does not support ", std::string(method), "; it supports ",
                              std::string(allowed)));
}

absl::Status UnknownPath(std::string_view path) {
  return MakeError(absl::StatusCode::kNotFound, "", "UNKNOWN_PATH",
                   absl::StrCat("unknown path ", std::string(path), "; /docs lists the routes"));
}

absl::Status UnknownService(std::string_view name, std::span<const std::string> known) {
  return MakeError(absl::StatusCode::kNotFound, "service", "UNKNOWN_SERVICE",
                   absl::StrCat("is \"", std::string(name), "\"; this server has: ", absl::StrJoin(known, ", ")));
}

absl::Status OptionsOnLaterMessage() {
  return Invalid("options", "MISPLACED_FIELD", "is set; only the first message of a stream may set it");
}

absl::Status MissingId() {
  return Invalid("id", "MISSING_ID", "is empty; every message of a stream needs an id, which its answer repeats");
}

absl::Status PartsInterrupted(std::string_view id, std::string_view other_id) {
  return Invalid("id", "PARTS_INTERRUPTED",
                 absl::StrCat("is \"", std::string(other_id), "\", but the last part of \"", std::string(id),
                              "\" has not arrived"));
}

absl::Status PartsNeedText() {
  return Invalid("more_parts", "MISPLACED_FIELD",
                 "is set on this message or on the previous one; parts must be text, not token ids");
}

absl::Status PartsUnfinished(std::string_view id) {
  return Invalid("more_parts", "PARTS_INTERRUPTED",
                 absl::StrCat("is set on the last message of the stream: \"", std::string(id), "\" is incomplete"));
}

absl::Status StreamedTextTooLarge(int64_t bytes, int64_t limit) {
  return Invalid("input.text", "TEXT_TOO_LARGE",
                 absl::StrCat("has at least ", bytes, " bytes, all parts together; the limit is ", limit));
}

}  // namespace longembed
