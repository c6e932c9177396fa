// Which of our kernels the processor can run.
#ifndef LONGEMBED_MODEL_ENCODER_CPU_CPU_FEATURES_H_
#define LONGEMBED_MODEL_ENCODER_CPU_CPU_FEATURES_H_

#include <string>

#include "model/encoder/precision.h"

namespace longembed::cpu {

// Empty when the kernels run here in this precision; otherwise what is missing, as the end of a sentence ("this
// processor has no AVX512-BF16").
std::string MissingFor(Precision precision);

}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_CPU_FEATURES_H_
