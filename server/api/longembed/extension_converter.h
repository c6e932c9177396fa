// Converts longembed.v1.Extension to the planner's Extension, and plans back to messages. Pure functions that any
// thread can call.
#ifndef LONGEMBED_SERVER_API_LONGEMBED_EXTENSION_CONVERTER_H_
#define LONGEMBED_SERVER_API_LONGEMBED_EXTENSION_CONVERTER_H_

#include "absl/status/statusor.h"
#include "longembed/v1/embedding.pb.h"
#include "model/manifest/manifest.h"
#include "model/plan/extension.h"
#include "model/plan/planner.h"
#include "server/core/profiles.h"

namespace longembed {

// Converts a request's extension, resolves `recommended` (which depends on `output`) and `profile`, and checks the
// result against the model. Errors (INVALID_ARGUMENT): those of CheckExtension, below options.extension;
// UNKNOWN_ENUM_VALUE, UNKNOWN_PROFILE, EXTENSION_CONFLICT (two methods, or other fields in addition to `recommended` or
// `profile`).
absl::StatusOr<Extension> ResolveExtension(const v1::Extension& asked, v1::EmbedOptions::Output output,
                                           const ModelManifest& model, const Profiles& profiles);

// Converts an extension. Omits numbers that depend on the text.
v1::Extension ToMessage(Extension extension);

// Converts the model's recommendations for GetModel.
void FillRecommendations(const ModelManifest& manifest, v1::Model& model);

void FillSequence(const PlannedSequence& planned, v1::Sequence& sequence);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_API_LONGEMBED_EXTENSION_CONVERTER_H_
