// Reads and writes messages in protobuf's JSON form. Errors name the field at every depth. Pure functions that any
// thread can call.
#ifndef LONGEMBED_SERVER_API_HTTP_JSON_MESSAGE_H_
#define LONGEMBED_SERVER_API_HTTP_JSON_MESSAGE_H_

#include <google/protobuf/message.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/status.h"

namespace longembed {

// Merges `object` into `message`. Field names are those of the proto, or in lowerCamelCase. Errors (INVALID_ARGUMENT):
// UNKNOWN_FIELD, WRONG_TYPE, and TOO_MANY_ELEMENTS with the limits of the wire format.
absl::Status ReadMessage(const nlohmann::json& object, google::protobuf::Message& message);

// Returns JSON with the proto's field names, without fields that have their default values.
std::string MessageToJson(const google::protobuf::Message& message);

// Appends the same to `text`. Stops, with incomplete JSON, once the text has more than `max_bytes`.
void AppendMessage(const google::protobuf::Message& message, int64_t max_bytes, std::string& text);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_API_HTTP_JSON_MESSAGE_H_
