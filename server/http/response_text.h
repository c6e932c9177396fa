// Formats HTTP headers. Pure functions that any thread can call.
#ifndef LONGEMBED_SERVER_HTTP_RESPONSE_TEXT_H_
#define LONGEMBED_SERVER_HTTP_RESPONSE_TEXT_H_

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/core/operation.h"

namespace longembed {

struct ResponseHeaderFields {
  int status = 200;
  std::string_view content_type;  // Empty: there is no content.
  size_t content_bytes = 0;
  bool keep_alive = true;
  const Operation::Headers& headers;
};

// Returns the status line and the header fields, with the empty line after them.
std::string ResponseHeader(const ResponseHeaderFields& fields);

// Returns the headers of an error: for a delay Retry-After in whole seconds, and retry-after-ms, which OpenAI's clients
// read; for a 401 WWW-Authenticate, without which some clients report a broken answer instead of the error.
Operation::Headers ErrorHeaders(const absl::Status& status);

// Returns whether the type is "application/json" or "application/...+json", with or without parameters.
bool IsJsonType(std::string_view content_type);

// Parses a number of seconds such as "1.5". Returns nullopt if it is not a number above 0.
std::optional<absl::Duration> ParseSeconds(std::string_view text);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_HTTP_RESPONSE_TEXT_H_
