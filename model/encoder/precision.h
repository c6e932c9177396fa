// Numeric precision of a model's matrix products.
#ifndef LONGEMBED_MODEL_ENCODER_PRECISION_H_
#define LONGEMBED_MODEL_ENCODER_PRECISION_H_

#include <cstdint>

namespace longembed {

// The precision of matrix products. Rotary tables, softmax, norms and their statistics, residual sums and pooling are
// always float32.
enum class Precision : uint8_t {
  kFloat32,
  kBfloat16,  // For linear layers and attention.
  kFloat16,   // CUDA only.
  // For linear layers, with one scale per output and one per token. Attention is bfloat16 if the processor supports it.
  kInt8,
};

// Returns the name of a precision in the config: "fp32", "bf16", "fp16" or "int8".
constexpr const char* PrecisionName(Precision precision) {
  switch (precision) {
    case Precision::kFloat32:
      return "fp32";
    case Precision::kBfloat16:
      return "bf16";
    case Precision::kFloat16:
      return "fp16";
    case Precision::kInt8:
      return "int8";
  }
  return "";
}

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_PRECISION_H_
