// Packs the weights of a schedule on all cores.
#ifndef LONGEMBED_MODEL_ENCODER_CPU_PACKING_H_
#define LONGEMBED_MODEL_ENCODER_CPU_PACKING_H_

#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "model/encoder/cpu/cpu_encoder.h"
#include "model/encoder/cpu/packed_weights.h"
#include "model/encoder/cpu/schedule.h"
#include "model/encoder/team.h"

namespace longembed::cpu {

// Packs all weights of the schedule, in the order of the file, and lets go of their sources.
// Errors: DATA_LOSS, a weight is infinite or NaN.
absl::Status PackAll(Schedule& schedule, const PackingOptions& options);

// Packs one segment's weights on the threads of `leader`; their sources stay.
// Errors: as above.
absl::Status PackSegment(Segment& segment, Team::Leader& leader);

}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_PACKING_H_
