// Parses and writes JSON. Pure functions that any thread can call.
#ifndef LONGEMBED_SERVER_HTTP_JSON_H_
#define LONGEMBED_SERVER_HTTP_JSON_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace longembed {

// Returns an upper bound of the memory in bytes that ParseJson needs for untrusted text, besides the text itself.
int64_t JsonParsingBytes(std::string_view text);

// Parses untrusted text. Errors (INVALID_ARGUMENT): MALFORMED_JSON, which names the byte; TOO_MANY_ELEMENTS;
// JSON_TOO_DEEP; DUPLICATE_FIELD, because JSON parsers would drop one of two fields.
absl::StatusOr<nlohmann::json> ParseJson(std::string_view text);

// Returns the value as JSON. Bytes that are not UTF-8 become U+FFFD: an error quotes paths and headers, which may hold
// any bytes, and nlohmann's own dump() would throw.
std::string JsonText(const nlohmann::json& value);

// Appends the text in quotes, as JSON. Bytes that are not UTF-8 become U+FFFD.
void AppendJsonString(std::string_view value, std::string& json);

// Appends the shortest number that is parsed as the same value. `value` must be finite.
void AppendJsonNumber(float value, std::string& json);
void AppendJsonNumber(double value, std::string& json);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_HTTP_JSON_H_
