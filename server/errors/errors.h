// The errors that the server adds to those of the model library (model/errors/errors.h), one function each.
#ifndef LONGEMBED_SERVER_ERRORS_ERRORS_H_
#define LONGEMBED_SERVER_ERRORS_ERRORS_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace longembed {

// Returns the retry delay of an overload error; nullopt for any other status.
std::optional<absl::Duration> RetryDelay(const absl::Status& status);

// The reason for rejecting a call with RESOURCE_EXHAUSTED. Each has its own reason code (ErrorReason); all have a retry
// delay.
enum class Overload {
  kQueueTokens,  // The model's queue is full.
  kQueueWait,    // The call would wait too long.
  kClientShare,  // The queue has room, but this client holds its share of it.
  kClientLimit,  // The client's own limit is reached.
  kDeadline,     // The call would not be done before its deadline.
};
// The bounds and their current use.
struct OverloadDetails {
  int64_t queued_tokens = 0;
  int64_t max_queued_tokens = 0;
  absl::Duration expected_wait;
  absl::Duration max_wait;
  int64_t max_client_tokens = 0;
};
absl::Status Overloaded(Overload reason, const OverloadDetails& details, absl::Duration retry_delay);
// Returns the retry delay for an expected wait: at least 50 ms, because an earlier retry would only be refused again,
// and at most a minute, because expectations change. Admission varies it by a quarter afterwards.
absl::Duration RetryDelayFor(absl::Duration wait);
absl::Status TooManyPendingBytes(int64_t bytes, int64_t limit, absl::Duration retry_delay);
absl::Status TooManyPendingBytesOfClient(int64_t bytes, int64_t limit, absl::Duration retry_delay);
absl::Status TooManyWatches(int64_t limit);
absl::Status TooManyWatchesOfClient(int64_t watches, int64_t limit);
absl::Status TooManyConcurrentCalls(int64_t calls, int64_t limit, absl::Duration retry_delay);
// An allocation failed. Only this request, or the calls of this batch, fail.
absl::Status ServerOutOfMemory(const std::string& what = "the server ran out of memory for this request");
bool IsOutOfMemory(const absl::Status& status);
// Returns the metric's label "reason" for an overload error; empty for any other status.
std::string OverloadLabel(const absl::Status& status);
// UNAUTHENTICATED:
absl::Status MissingApiKey();
absl::Status UnknownApiKey();
// UNAVAILABLE:
absl::Status ServerDraining();
absl::Status NotServing();
absl::Status StreamTooOld(absl::Duration max_age);
// A batch of the model does not end.
absl::Status EncoderHangs(std::string_view model);
// DEADLINE_EXCEEDED and CANCELLED:
absl::Status DeadlineExceeded();
absl::Status CallCancelled();
// UNIMPLEMENTED:
absl::Status NotOffered(std::string_view what);
absl::Status UnknownMethod(std::string_view path);
// NOT_FOUND:
absl::Status UnknownModel(std::string_view field, std::string_view name, std::span<const std::string> known);
// The profile of an alias MODEL:PROFILE is unknown.
absl::Status UnknownProfileOfModel(std::string_view field, std::string_view model, std::string_view profile,
                                   std::span<const std::string> known);
// INVALID_ARGUMENT, unless noted:
absl::Status ModelNotNamed(std::string_view field, std::span<const std::string> known);
absl::Status NoInputs(std::string_view field);
absl::Status TooManyInputs(std::string_view field, int64_t count, int64_t limit);
absl::Status TooManyVectorsInCall(int64_t vectors, int64_t limit);
absl::Status TooManyRunTokensInCall(int64_t tokens, int64_t limit);
absl::Status TooManySpanTokensInCall(int64_t tokens, int64_t limit);
// For a Tokenize call. `limit` is what its earlier texts have left.
absl::Status TooManyTokens(int64_t tokens, int64_t limit);
absl::Status PromptTooLarge(int64_t bytes, int64_t limit);
absl::Status UnknownProfile(std::string_view field, std::string_view name, std::span<const std::string> known);
absl::Status ProfileDoesNotFit(std::string_view field, std::string_view name, const absl::Status& reason);
// A request has both an alias and an extension.
absl::Status ExtensionBesideAlias(std::string_view alias_field, std::string_view profile);
absl::Status RequestTooLarge(uint64_t bytes, int64_t limit);
// For vectors, whose size is known before the model runs.
absl::Status ResponseTooLarge(int64_t bytes, int64_t limit);
// For an answer that is complete. `field` is the field of the request that made the answer so large; empty if unknown.
absl::Status JsonAnswerTooLarge(int64_t limit);  // Its whole size is not known, because writing stops at the limit.
absl::Status AnswerTooLarge(std::string_view field, int64_t bytes, int64_t limit);
absl::Status TooManyElements(std::string_view field, int64_t count, int64_t limit);
// `path` is that of the message with the field; empty for the request itself.
absl::Status UnknownFieldNumber(std::string_view path, int number);
absl::Status MalformedRequest(std::string_view message_type);
absl::Status UnknownEnumValue(std::string_view field, int value);
absl::Status MissingContent(std::string_view field);
absl::Status NoRanges(std::string_view field);
absl::Status WindowVectorsNeedWindows();
absl::Status NoSpansNamed();
// Token vectors need an input type.
absl::Status InputTypeNeeded();
// `value` is the field's value, `instead` the remedy.
absl::Status NotWithSparse(std::string_view field, std::string_view value, std::string_view instead);
// Requests over HTTP. `byte` is a position in the text, from 1.
absl::Status MalformedJson(int64_t byte, int64_t bytes);
absl::Status JsonNumberTooLarge();
absl::Status JsonTooDeep(int depth, int limit);
absl::Status DuplicateField(std::string_view field);
absl::Status UnknownField(std::string_view field, std::span<const std::string> known);
// `expected` is a description such as "a string".
absl::Status WrongJsonType(std::string_view field, std::string_view expected, std::string_view found);
// `what` is the reason that protobuf's JSON reader gives.
absl::Status WrongJsonValue(std::string_view field, std::string_view what);
absl::Status MissingField(std::string_view field);
// Token ids that are not complete sequences of the model's own tokenizer.
absl::Status ForeignTokens(std::string_view field, std::span<const int32_t> prefix, std::span<const int32_t> suffix);
absl::Status MalformedHttp(std::string_view what);
absl::Status HeaderTooLarge(int64_t limit);
absl::Status RequestTooSlow(absl::Duration limit);
absl::Status NotJson(std::string_view content_type);
absl::Status CompressedRequest(std::string_view encoding);
absl::Status BadTimeout(std::string_view value);
absl::Status MethodNotAllowed(std::string_view method, std::string_view path, std::string_view allowed);
// NOT_FOUND:
absl::Status UnknownPath(std::string_view path);
// `known` are quoted names.
absl::Status UnknownService(std::string_view name, std::span<const std::string> known);
// INVALID_ARGUMENT, in EmbedStream:
absl::Status OptionsOnLaterMessage();
absl::Status MissingId();
absl::Status PartsInterrupted(std::string_view id, std::string_view other_id);
absl::Status PartsNeedText();
absl::Status PartsUnfinished(std::string_view id);
absl::Status StreamedTextTooLarge(int64_t bytes, int64_t limit);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_ERRORS_ERRORS_H_
