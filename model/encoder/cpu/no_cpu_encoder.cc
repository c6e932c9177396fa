// For processors that we have no kernels for.
#include "model/encoder/cpu/cpu_encoder.h"
#include "model/encoder/cpu/cpu_features.h"

namespace longembed {

absl::StatusOr<std::unique_ptr<Encoder>> MakeCpuEncoder(Program, Precision precision, const PackingOptions&) {
  return absl::FailedPreconditionError(cpu::MissingFor(precision));
}

}  // namespace longembed
