// The textual form of an extension: JSON by the field names of longembed.v1.Extension. A profile of the server's config
// and a manifest's recommendation are written in it, and a recipe holds it. Pure functions: any thread.
#ifndef LONGEMBED_MODEL_PLAN_EXTENSION_JSON_H_
#define LONGEMBED_MODEL_PLAN_EXTENSION_JSON_H_

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "model/plan/extension.h"

namespace longembed {

// An extension that names everything itself: `recommended` and `profile` are refused. Numbers and truth values may be
// in quotes, and names in lowerCamelCase, as in protobuf's JSON. Takes untrusted text. Errors (INVALID_ARGUMENT): no
// JSON, an unknown key or one that appears twice, a value of another type, two positions methods.
absl::StatusOr<Extension> ParseExtension(std::string_view json);

// All that a checked extension means for `model`, defaults filled in. A number that follows from the sequence is
// "adaptive". {} for one that changes nothing.
nlohmann::json CanonicalJson(const ModelManifest& model, const Extension& extension);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_EXTENSION_JSON_H_
