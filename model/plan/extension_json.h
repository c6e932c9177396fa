// The text form of an extension: JSON with the field names of longembed.v1.Extension. Profiles in the server's config,
// a manifest's recommendations and recipes use it. Pure functions that any thread can call.
#ifndef LONGEMBED_MODEL_PLAN_EXTENSION_JSON_H_
#define LONGEMBED_MODEL_PLAN_EXTENSION_JSON_H_

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "model/plan/extension.h"

namespace longembed {

// Parses an extension. `recommended` and `profile`, which refer to another extension, are refused. As in protobuf's
// JSON, numbers and booleans may be quoted, and names may be in lowerCamelCase. Accepts untrusted text. Errors
// (INVALID_ARGUMENT): invalid JSON, an unknown or repeated key, a value of the wrong type, two positions methods.
absl::StatusOr<Extension> ParseExtension(std::string_view json);

// Returns a checked extension as JSON with the defaults for `model` filled in. A number that is computed from the
// sequence's length is written as "adaptive". An extension that changes nothing gives {}.
nlohmann::json CanonicalJson(const ModelManifest& model, const Extension& extension);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_EXTENSION_JSON_H_
