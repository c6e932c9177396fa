// Every error that the model library gives a caller, by name: its status code, its wording, the request field at fault
// and a stable reason.
//
//   if (ids.empty()) return EmptyInput();
//
//   return AtField(status, "inputs[3]");   // "token_ids" -> "inputs[3].token_ids"
//
// Field and reason travel as payloads of the absl::Status, so that a server can put them into its protocol's error
// details.
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

// A status of `code` about `field`, a path within the request such as "text" or "options.dimensions" (empty: no field
// in particular). `reason` is UPPER_SNAKE_CASE and never changes once published. A description beyond 800 bytes is cut.
absl::Status MakeError(absl::StatusCode code, std::string_view field, std::string_view reason,
                       std::string_view description);

// The field and the reason that MakeError put into a status; empty where there is none.
std::string ErrorField(const absl::Status& status);
std::string ErrorReason(const absl::Status& status);

// The same error, its field below `parent` (or `parent` itself where it had none). A field that begins with "options."
// belongs to the request as a whole and stays as it is. For errors made by MakeError.
absl::Status AtField(const absl::Status& status, std::string_view parent);

// The same error; a field that is `from`, or below it, is then `to`, or below that. For errors made by MakeError.
absl::Status RenameField(const absl::Status& status, std::string_view from, std::string_view to);

// --- The errors ------------------------------------------------------------------------------------------------------
// An error without a field is about the input as a whole.

absl::Status EmptyInput();
absl::Status InvalidUtf8(std::string_view field, size_t byte);
// For example: an unknown word, where the vocabulary lacks the unknown token.
absl::Status TokenizerFailed(std::string_view what);
absl::Status InputTooLong(int64_t tokens, int64_t capacity);
// Ids that are complete carry their own special tokens, which truncation would cut away.
// `limit`: what sets the capacity, where a field does.
absl::Status CompleteIdsTooLong(int64_t tokens, int64_t capacity, std::string_view limit = "the limit");
absl::Status InputBeyondLimit(int64_t tokens, int64_t limit);
absl::Status PromptTooLong(int64_t prompt_and_special_tokens, int64_t capacity);
// Of options.max_tokens.
absl::Status InputBeyondMaxTokens(int64_t tokens, int64_t max_tokens);
absl::Status PromptBeyondMaxTokens(int64_t prompt_and_special_tokens, int64_t max_tokens);
absl::Status MaxTokensOutOfRange(int64_t max_tokens);
absl::Status TokenIdOutOfRange(size_t index, int64_t id, int64_t vocabulary_size);
absl::Status UnknownPrompt(std::string_view field, std::string_view name, std::span<const std::string> known);
absl::Status DimensionsOutOfRange(int64_t dimensions, int64_t hidden_size);
absl::Status DimensionsNotTrained(int64_t dimensions, std::span<const int> trained);
// `output`: as the request names it; `available`: what the model gives.
absl::Status OutputNotAvailable(std::string_view output, std::string_view model,
                                std::span<const std::string> available);
absl::Status TokenPoolingOutOfRange(int64_t factor, int64_t most);
absl::Status MaxTermsOutOfRange(int64_t max_terms, int64_t vocabulary_size);
// Context extension. The field is relative to the extension, but for errors that only an input brings to light.
absl::Status MethodNotAvailable(std::string_view field, std::string_view model, std::string_view family,
                                std::span<const std::string> available);
absl::Status ExtensionValueOutOfRange(std::string_view field, std::string_view value, std::string_view range);
absl::Status ExtensionConflict(std::string_view field, std::string_view what);
absl::Status WindowTooLarge(std::string_view field, int64_t tokens, int64_t capacity);
absl::Status WindowTooSmall(int64_t tokens, int64_t special_tokens);
absl::Status OverlapTooLarge(std::string_view field, int64_t overlap, int64_t content);
// Several vectors of one input. The fields are those of an input.
absl::Status TooManyVectors(int64_t vectors, int64_t limit);
absl::Status TooManyRunTokens(int64_t tokens, int64_t limit);
absl::Status NoSpanWithTokens();
absl::Status SpanOutOfRange(size_t index, int64_t start, int64_t end, std::string_view what, int64_t size);
absl::Status SpanEmpty(size_t index);
absl::Status SpanTruncated(size_t index);
absl::Status SentencesNeedText();
// The model gave a vector that is zero or not finite.
absl::Status UnusableVector();
absl::Status EncoderCancelled();
absl::Status EncoderOutOfMemory(std::string_view what);
absl::Status EncoderFailed(std::string_view what);
// FAILED_PRECONDITION, of a model's config.
absl::Status PrecisionUnavailable(std::string_view precision, std::string_view why);
absl::Status ModelDirectoryError(std::string_view path, std::string_view what);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ERRORS_ERRORS_H_
