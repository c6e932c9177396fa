// Encodes sequences that no client has sent, at start and as a check of the encoder.
#ifndef LONGEMBED_SERVER_CORE_WARM_UP_H_
#define LONGEMBED_SERVER_CORE_WARM_UP_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/embed/model.h"
#include "model/plan/sequence.h"

namespace longembed {

class ServedModel;

// Plans a plain sequence of `tokens` equal content tokens. It is cut to the model's capacity.
absl::StatusOr<Sequence> SampleSequence(const Model& model, int tokens);

// Encodes a few short and long sequences, so that the first request does not bear the cost of an engine's first calls.
// Seeds the lane's throughput with the time that they took.
absl::Status WarmUp(ServedModel& model);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_CORE_WARM_UP_H_
