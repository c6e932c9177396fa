// Every error of the model library, as a function that makes it. An error has a status code, a description, the request
// field at fault and a stable reason.
//
//   if (ids.empty()) return EmptyInput();
//
//   return AtField(status, "inputs[3]");   // "token_ids" -> "inputs[3].token_ids"
//
// Field and reason are payloads of the absl::Status, so that a server can put them into the error details of its
// protocol.
#ifndef LONGEMBED_MODEL_ERRORS_ERRORS_H_
#define LONGEMBED_MODEL_ERRORS_ERRORS_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace longembed {

// --- The mechanism ---------------------------------------------------------------------------------------------------

// Makes a status of `code` about `field`, a path within the request such as "text" or "options.dimensions", or empty if
// no single field is at fault. `reason` is UPPER_SNAKE_CASE and never changes once published. A field of more than 200
// bytes and a description of more than 800 bytes are truncated.
absl::Status MakeError(absl::StatusCode code, std::string_view field, std::string_view reason,
                       std::string_view description);

// Return the field and the reason that MakeError put into a status, or "" if there is none.
std::string ErrorField(const absl::Status& status);
std::string ErrorReason(const absl::Status& status);

// Returns the error with its field prefixed by `parent` and a dot, or with field `parent` if it has none. A field that
// begins with "options." belongs to the request as a whole and does not change. For errors made by MakeError.
absl::Status AtField(const absl::Status& status, std::string_view parent);

// Returns the error with the prefix `from` of its field replaced by `to`, or the error itself if its field does not
// begin with `from`. For errors made by MakeError.
absl::Status RenameField(const absl::Status& status, std::string_view from, std::string_view to);

// --- The errors ------------------------------------------------------------------------------------------------------
// An error without a field is about the input as a whole.

absl::Status EmptyInput();
absl::Status InvalidUtf8(std::string_view field, size_t byte);
// The tokenizer cannot encode the text. For example, it has an unknown word, and the vocabulary has no unknown token.
absl::Status TokenizerFailed(std::string_view what);
absl::Status InputTooLong(int64_t tokens, int64_t capacity);
// The same for a query of TOKEN_VECTORS, which is never extended.
absl::Status QueryTooLong(int64_t tokens, int64_t capacity);
// For complete ids, which include their special tokens, so that truncation would remove these. `limit` names the field
// that sets the capacity, if there is one.
absl::Status CompleteIdsTooLong(int64_t tokens, int64_t capacity, std::string_view limit = "the limit");
absl::Status InputBeyondLimit(int64_t tokens, int64_t limit);
absl::Status PromptTooLong(int64_t prompt_and_special_tokens, int64_t capacity);
// For options.max_tokens.
absl::Status InputBeyondMaxTokens(int64_t tokens, int64_t max_tokens);
absl::Status PromptBeyondMaxTokens(int64_t prompt_and_special_tokens, int64_t max_tokens);
absl::Status MaxTokensOutOfRange(int64_t max_tokens);
absl::Status TokenIdOutOfRange(size_t index, int64_t id, int64_t vocabulary_size);
// An id to decode that the tokenizer does not have. `what` names it.
absl::Status NoSuchToken(std::string_view what);
absl::Status UnknownPrompt(std::string_view field, std::string_view name, std::span<const std::string> known);
absl::Status DimensionsOutOfRange(int64_t dimensions, int64_t hidden_size);
absl::Status DimensionsNotTrained(int64_t dimensions, std::span<const int> trained);
// `output` is the requested output, and `available` lists what the model gives.
absl::Status OutputNotAvailable(std::string_view output, std::string_view model,
                                std::span<const std::string> available);
absl::Status TokenPoolingOutOfRange(int64_t factor, int64_t max);
absl::Status MaxTermsOutOfRange(int64_t max_terms, int64_t vocabulary_size);
// Context extension. The field is relative to the extension, except for errors that depend on the input.
absl::Status MethodNotAvailable(std::string_view field, std::string_view model, std::string_view family,
                                std::span<const std::string> available);
absl::Status ExtensionValueOutOfRange(std::string_view field, std::string_view value, std::string_view range);
absl::Status ExtensionConflict(std::string_view field, std::string_view what);
absl::Status WindowTooLarge(std::string_view field, int64_t tokens, int64_t capacity);
absl::Status WindowBeyondServerLimit(std::string_view field, int64_t tokens, int64_t limit);
absl::Status WindowTooSmall(int64_t tokens, int64_t special_tokens);
absl::Status OverlapTooLarge(std::string_view field, int64_t overlap, int64_t content);
// Several vectors of one input. The field is relative to the input.
absl::Status TooManyVectors(int64_t vectors, int64_t limit);
absl::Status TooManyRunTokens(int64_t tokens, int64_t limit);
absl::Status TooManySpanTokens(int64_t tokens, int64_t limit);
absl::Status NoSpanWithTokens();
absl::Status SpanOutOfRange(size_t index, int64_t start, int64_t end, std::string_view what, int64_t size);
absl::Status SpanEmpty(size_t index);
absl::Status SpanTruncated(size_t index);
absl::Status SentencesNeedText();
absl::Status EveryTokensTooFew(int64_t tokens);
// A field is set without what it `needs`.
absl::Status Misplaced(std::string_view field, std::string_view needs);
// The model produced a vector that is zero or not finite.
absl::Status UnusableVector();
// INVALID_ARGUMENT: the requested encoding would round a component to infinity.
absl::Status ComponentBeyondEncoding(float component, float limit);
absl::Status EncoderCancelled();
absl::Status EncoderOutOfMemory(std::string_view what);
absl::Status EncoderFailed(std::string_view what);
// Errors in a model's config or directory, with the code FAILED_PRECONDITION.
absl::Status PrecisionUnavailable(std::string_view precision, std::string_view why);
absl::Status ModelDirectoryError(std::string_view path, std::string_view what);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ERRORS_ERRORS_H_
