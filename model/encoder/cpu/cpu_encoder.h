// The encoder that runs a Program with our own kernels. No LibTorch, no OpenMP: a batch runs on the calling thread and
// on its leader's helpers.
#ifndef LONGEMBED_MODEL_ENCODER_CPU_CPU_ENCODER_H_
#define LONGEMBED_MODEL_ENCODER_CPU_CPU_ENCODER_H_

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "model/encoder/cpu/kernels.h"
#include "model/encoder/encoder.h"
#include "model/encoder/precision.h"
#include "model/encoder/program.h"

namespace longembed {

struct PackingOptions {
  int threads = 1;
  // Packs a layer's weights each time a batch comes to them and frees them afterwards, one batch at a time: slow, and
  // for models that do not fit into memory.
  bool streamed = false;
  // Told how much of the weights is packed, from 0 to 1; on any of the threads, one at a time. Streamed: by each batch.
  std::function<void(double)> on_progress;
};

// Weights are packed for `precision`; pages of a file are dropped as they are packed. `kernels` must be available
// (cpu/kernels.h). Errors: DATA_LOSS for a
// weight of a linear layer that is infinite or NaN; FAILED_PRECONDITION for fp16; UNIMPLEMENTED for shapes beyond the
// kernels' (head size).
absl::StatusOr<std::unique_ptr<Encoder>> MakeCpuEncoder(Program program, Precision precision,
                                                        const cpu::Kernels& kernels,
                                                        const PackingOptions& packing = {});

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_CPU_CPU_ENCODER_H_
