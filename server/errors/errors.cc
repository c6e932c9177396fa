#include "server/errors/errors.h"

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

absl::Status Overloaded(int64_t queued_tokens, int64_t max_queued_tokens, absl::Duration retry_delay) {
  absl::Status status = MakeError(
      absl::StatusCode::kResourceExhausted, "", "OVERLOADED",
      absl::StrCat("the queue holds ", queued_tokens, " of at most ", max_queued_tokens, " tokens; try again in ",
                   absl::FormatDuration(absl::Trunc(retry_delay, absl::Milliseconds(1)))));
  status.SetPayload(kRetryPayload, absl::Cord(absl::FormatDuration(retry_delay)));
  return status;
}

absl::Status ServerDraining() {
  return MakeError(absl::StatusCode::kUnavailable, "", "DRAINING", "the server is shutting down; try another replica");
}

absl::Status DeadlineExceeded() {
  return MakeError(absl::StatusCode::kDeadlineExceeded, "", "DEADLINE_EXCEEDED",
                   "the deadline passed before the work was done");
}

absl::Status CallCancelled() {
  return MakeError(absl::StatusCode::kCancelled, "", "CANCELLED", "the call was cancelled");
}

absl::Status UnknownModel(std::string_view field, std::string_view name, std::span<const std::string> known) {
  return MakeError(absl::StatusCode::kNotFound, field, "UNKNOWN_MODEL",
                   absl::StrCat("is \"", std::string(name), "\"; this server has: ", absl::StrJoin(known, ", ")));
}

absl::Status ModelNotNamed(std::string_view field, std::span<const std::string> known) {
  return Invalid(
      field, "MODEL_NOT_NAMED",
      absl::StrCat("is empty, which only a server with one model allows; this one has: ", absl::StrJoin(known, ", ")));
}

absl::Status NoInputs(std::string_view field) { return Invalid(field, "NO_INPUTS", "is empty; at least 1 is needed"); }

absl::Status TooManyInputs(std::string_view field, int64_t count, int64_t limit) {
  return Invalid(field, "TOO_MANY_INPUTS", absl::StrCat("has ", count, " entries; the limit is ", limit, " a call"));
}

absl::Status TooManyVectorsInCall(int64_t vectors, int64_t limit) {
  return Invalid("inputs", "TOO_MANY_VECTORS",
                 absl::StrCat("take ", vectors, " windows or spans together; the limit of a call is ", limit));
}

absl::Status TooManyRunTokensInCall(int64_t tokens, int64_t limit) {
  return Invalid("inputs", "TOO_MANY_TOKENS",
                 absl::StrCat("would run ", tokens, " tokens through the model; the limit of a call is ", limit));
}

absl::Status TooManyTokens(int64_t tokens, int64_t limit) {
  return Invalid(
      "", "TOO_MANY_TOKENS",
      absl::StrCat("has ", tokens, " tokens; of what this server tokenises in a call, ", limit, " are left"));
}

absl::Status PromptTooLarge(int64_t bytes, int64_t limit) {
  return Invalid("options.prompt", "PROMPT_TOO_LONG",
                 absl::StrCat("has ", bytes, " bytes; the limit of this server is ", limit));
}

absl::Status UnknownProfile(std::string_view name, std::span<const std::string> known) {
  return Invalid("options.extension.profile", "UNKNOWN_PROFILE",
                 known.empty()
                     ? absl::StrCat("is \"", std::string(name), "\"; this server has no profiles")
                     : absl::StrCat("is \"", std::string(name), "\"; this server has: ", absl::StrJoin(known, ", ")));
}

absl::Status ProfileDoesNotFit(std::string_view name, const absl::Status& reason) {
  return Invalid("options.extension.profile", ErrorReason(reason),
                 absl::StrCat("\"", std::string(name), "\" does not fit this model: ", std::string(reason.message())));
}

absl::Status RequestTooLarge(int64_t bytes, int64_t limit) {
  return Invalid("", "REQUEST_TOO_LARGE", absl::StrCat("the request has ", bytes, " bytes; the limit is ", limit));
}

absl::Status MalformedRequest(std::string_view message_type) {
  return Invalid("", "MALFORMED_REQUEST", absl::StrCat("the request is not a well-formed ", std::string(message_type)));
}

absl::Status UnknownEnumValue(std::string_view field, int value) {
  return Invalid(field, "UNKNOWN_ENUM_VALUE", absl::StrCat("is ", value, ", which names nothing in this version"));
}

absl::Status MissingContent(std::string_view field) {
  return Invalid(field, "MISSING_CONTENT", "has neither text nor token_ids");
}

absl::Status NoRanges(std::string_view field) {
  return Invalid(field, "NO_RANGES", "is empty; options.spans.ranges needs at least 1 range an input");
}

absl::Status WindowVectorsNeedWindows() {
  return Invalid("options.output", "MISPLACED_FIELD", "is WINDOW_VECTORS, which needs options.extension.windows");
}

absl::Status NoSpansNamed() {
  return Invalid("options.spans", "NO_SPANS",
                 "is empty; options.output SPAN_VECTORS needs one of ranges, sentences and every_tokens");
}

absl::Status EveryTokensTooFew(int64_t tokens) {
  return Invalid("options.spans.every_tokens.tokens", "SPAN_TOO_SHORT",
                 absl::StrCat("is ", tokens, "; it must be at least 1"));
}

absl::Status Misplaced(std::string_view field, std::string_view needs) {
  return Invalid(field, "MISPLACED_FIELD", absl::StrCat("is set, but needs ", std::string(needs)));
}

absl::Status NotYetImplemented(std::string_view field, std::string_view what) {
  return MakeError(absl::StatusCode::kUnimplemented, field, "NOT_YET_IMPLEMENTED",
                   absl::StrCat(std::string(what), " is not implemented by this version of the server"));
}

}  // namespace longembed
