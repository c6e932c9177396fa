// The conditions under which kernels and schedule can run a program's attention.
#ifndef LONGEMBED_MODEL_ENCODER_CPU_ATTENTION_CHECK_H_
#define LONGEMBED_MODEL_ENCODER_CPU_ATTENTION_CHECK_H_

#include "absl/status/status.h"
#include "model/encoder/program.h"

namespace longembed::cpu {

// Checks that heads and biases have sizes that the kernels know; that queries, keys and values come from a linear
// layer, perhaps through norms of their heads, and that nothing else reads them, because the context takes the queries'
// place; that only linear layers read the context, because it may be bfloat16; and that all local layers share their
// rotations. Errors: UNIMPLEMENTED, with what is not so.
absl::Status CheckAttention(const Program& program);

}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_ATTENTION_CHECK_H_
