// Every error that the server adds to those of the model library (model/errors/errors.h), by name.
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

// When to try again, as an error for overload says it.
std::optional<absl::Duration> RetryDelay(const absl::Status& status);

// RESOURCE_EXHAUSTED, with a retry delay.
absl::Status Overloaded(int64_t queued_tokens, int64_t max_queued_tokens, absl::Duration retry_delay);
// UNAVAILABLE.
absl::Status ServerDraining();
absl::Status DeadlineExceeded();
absl::Status CallCancelled();
// NOT_FOUND.
absl::Status UnknownModel(std::string_view field, std::string_view name, std::span<const std::string> known);
// INVALID_ARGUMENT, all below.
absl::Status ModelNotNamed(std::string_view field, std::span<const std::string> known);
absl::Status NoInputs(std::string_view field);
absl::Status TooManyInputs(std::string_view field, int64_t count, int64_t limit);
absl::Status TooManyVectorsInCall(int64_t vectors, int64_t limit);
absl::Status TooManyRunTokensInCall(int64_t tokens, int64_t limit);
// A Tokenize call; texts that went before count.
absl::Status TooManyTokens(int64_t tokens, int64_t limit);
absl::Status PromptTooLarge(int64_t bytes, int64_t limit);
absl::Status UnknownProfile(std::string_view name, std::span<const std::string> known);
absl::Status ProfileDoesNotFit(std::string_view name, const absl::Status& reason);
absl::Status RequestTooLarge(int64_t bytes, int64_t limit);
absl::Status MalformedRequest(std::string_view message_type);
absl::Status UnknownEnumValue(std::string_view field, int value);
absl::Status MissingContent(std::string_view field);
absl::Status NoRanges(std::string_view field);
absl::Status WindowVectorsNeedWindows();
absl::Status NoSpansNamed();
absl::Status EveryTokensTooFew(int64_t tokens);
absl::Status Misplaced(std::string_view field, std::string_view needs);
// UNIMPLEMENTED.
absl::Status NotYetImplemented(std::string_view field, std::string_view what);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_ERRORS_ERRORS_H_
