// The encoder that runs a Program with this project's kernels, without LibTorch or OpenMP. A batch runs on the calling
// thread and on its leader's helpers.
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
  // Whether each batch packs a layer's weights before it uses them and frees them afterwards, one batch at a time. This
  // is slow, and meant for models that do not fit into memory.
  bool streamed = false;
  // Called with the fraction of the weights packed so far, 0 to 1, from any of the threads but never concurrently. If
  // streamed, called during every batch.
  std::function<void(double)> on_progress;
};

// Makes an encoder. Weights are packed for `precision`, and pages of a mapped file are dropped once they are packed.
// `kernels` must be available (cpu/kernels.h). Errors: DATA_LOSS if a weight of a linear layer is infinite or NaN;
// FAILED_PRECONDITION for fp16; UNIMPLEMENTED if CheckAttention (attention_check.h) fails.
absl::StatusOr<std::unique_ptr<Encoder>> MakeCpuEncoder(Program program, Precision precision,
                                                        const cpu::Kernels& kernels,
                                                        const PackingOptions& packing = {});

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_CPU_CPU_ENCODER_H_
