// The functions that networks apply to each component of a product.
#ifndef LONGEMBED_MODEL_ENCODER_ACTIVATION_H_
#define LONGEMBED_MODEL_ENCODER_ACTIVATION_H_

#include <cstdint>

namespace longembed {

enum class Activation : uint8_t {
  kNone,
  kGelu,      // x Phi(x), computed with erf.
  kGeluTanh,  // Approximation of GELU: x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).
  kSilu,      // x / (1 + e^-x).
  kTanh,
  kRelu,
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_ACTIVATION_H_
