// The encoder that runs a Program with our own kernels. No LibTorch, no OpenMP: a batch runs on the calling thread and
// on its leader's helpers.
#ifndef LONGEMBED_MODEL_ENCODER_CPU_CPU_ENCODER_H_
#define LONGEMBED_MODEL_ENCODER_CPU_CPU_ENCODER_H_

#include <memory>

#include "absl/status/statusor.h"
#include "model/encoder/encoder.h"
#include "model/encoder/precision.h"
#include "model/encoder/program.h"

namespace longembed {

// Weights are packed for `precision`; the program's own are let go one by one, unless
// somebody else holds them. Errors: FAILED_PRECONDITION when the processor cannot run it (cpu_features.h);
// UNIMPLEMENTED for shapes beyond the kernels' (head size).
absl::StatusOr<std::unique_ptr<Encoder>> MakeCpuEncoder(Program program, Precision precision);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_CPU_CPU_ENCODER_H_
