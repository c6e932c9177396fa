// Describes a model as a message of longembed.v1. A pure function that any thread can call.
#ifndef LONGEMBED_SERVER_API_LONGEMBED_MODEL_CONVERTER_H_
#define LONGEMBED_SERVER_API_LONGEMBED_MODEL_CONVERTER_H_

#include "longembed/v1/embedding.pb.h"
#include "server/config/config.h"
#include "server/core/profiles.h"
#include "server/core/served_model.h"

namespace longembed {

// Fills the description that ListModels and GetModel return.
void FillModel(const ServedModel& served, const Profiles& profiles, const LimitsConfig& limits, v1::Model& model);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_API_LONGEMBED_MODEL_CONVERTER_H_
