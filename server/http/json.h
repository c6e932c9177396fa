// JSON from clients and for them. Pure functions: any thread.
#ifndef LONGEMBED_SERVER_HTTP_JSON_H_
#define LONGEMBED_SERVER_HTTP_JSON_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace longembed {

// Bytes of memory that ParseJson takes for untrusted text, the text itself apart; at most.
int64_t JsonParsingBytes(std::string_view text);

// Takes untrusted text. Errors (INVALID_ARGUMENT): MALFORMED_JSON, which names the byte; TOO_MANY_ELEMENTS;
// JSON_TOO_DEEP; DUPLICATE_FIELD, of which JSON readers would drop one.
absl::StatusOr<nlohmann::json> ParseJson(std::string_view text);

// In quotes, for JSON. Bytes that are not UTF-8 become U+FFFD.
void AppendJsonString(std::string_view value, std::string& json);

// The shortest number that reads back as the same float. `value` must be finite.
void AppendJsonNumber(float value, std::string& json);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_HTTP_JSON_H_
