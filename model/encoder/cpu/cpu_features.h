// Which of our kernels the processor can run.
#ifndef LONGEMBED_MODEL_ENCODER_CPU_CPU_FEATURES_H_
#define LONGEMBED_MODEL_ENCODER_CPU_CPU_FEATURES_H_

#include <string>

#include "model/encoder/precision.h"

namespace longembed::cpu {

// Empty when the kernels run here in this precision; otherwise what is missing, as the end of a sentence ("this
// processor has no AVX512-VNNI").
std::string MissingFor(Precision precision);

// Whether products of bfloat16 with bfloat16 are an instruction (AVX512-BF16). Without it our kernels keep weights in
// bfloat16 all the same, and multiply them in float32.
bool HasBfloat16Products();

}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_CPU_FEATURES_H_
