// Numeric precision of a model's matrix products.
#ifndef LONGEMBED_MODEL_ENCODER_PRECISION_H_
#define LONGEMBED_MODEL_ENCODER_PRECISION_H_

#include <cstdint>

namespace longembed {

// In every precision rotary tables, softmax, norms and their statistics, residual sums and pooling are float32.
enum class Precision : uint8_t {
  kFloat32,
  kBfloat16,  // Linear layers and attention.
  kFloat16,   // CUDA only.
  kInt8,  // Linear layers: a scale for each output and for each token. Attention is bfloat16 where the processor has
          // it.
};

// "fp32", "bf16", "fp16", "int8", as in the config.
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
