// Checks that the kernels and the schedule can run a program's attention.
#ifndef LONGEMBED_MODEL_ENCODER_CPU_ATTENTION_CHECK_H_
#define LONGEMBED_MODEL_ENCODER_CPU_ATTENTION_CHECK_H_

#include "absl/status/status.h"
#include "model/encoder/program.h"

namespace longembed::cpu {

// Checks a program. Errors: UNIMPLEMENTED with the condition that fails. The conditions are:
// * The kernels support the sizes of heads and biases.
// * Queries, keys and values come from a linear layer, possibly through head norms, and nothing else reads them,
//   because the context overwrites the queries.
// * Only linear layers read the context, because it may be bfloat16.
// * All layers of local attention use the same rotations.
absl::Status CheckAttention(const Program& program);

}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_ATTENTION_CHECK_H_
