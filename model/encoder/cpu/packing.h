// Packs the weights of a schedule with several threads.
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

// Packs all weights of the schedule on options.threads threads, in the order of the file, and releases their sources.
// Errors: DATA_LOSS if a weight is infinite or NaN.
absl::Status PackAll(Schedule& schedule, const PackingOptions& options);

// Packs the weights of one segment on the threads of `leader`. Keeps their sources.
// Errors: as for PackAll.
absl::Status PackSegment(Segment& segment, Team::Leader& leader);

}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_PACKING_H_
