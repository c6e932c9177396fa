#include "model/vector/encoding.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace longembed {
namespace {

template <typename Bits>
std::string PackHalves(std::span<const float> vector, Bits bits) {
  std::string packed;
  packed.reserve(vector.size() * 2);
  for (const float x : vector) {
    const uint16_t half = bits(x);
    packed.push_back(static_cast<char>(half & 0xff));
    packed.push_back(static_cast<char>(half >> 8));
  }
  return packed;
}

}  // namespace

uint16_t Float16Bits(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  const float magnitude = std::bit_cast<float>(bits & 0x7fffffff);
  if (std::isnan(value)) return sign | 0x7e00;
  if (magnitude >= 65520.0f) return sign | 0x7c00;  // Rounds to infinity.
  if (magnitude < 0x1p-14f) {
    // Subnormal: a multiple of 2^-24. After adding 0.5, the lowest mantissa bits are exactly this multiple, rounded by
    // the hardware.
    const uint32_t shifted = std::bit_cast<uint32_t>(magnitude + 0.5f) - std::bit_cast<uint32_t>(0.5f);
    return sign | static_cast<uint16_t>(shifted);
  }
  const uint32_t rebased = (bits & 0x7fffffff) - (112u << 23);  // Exponent bias 127 -> 15.
  const uint32_t rounded = rebased + 0x0fff + ((rebased >> 13) & 1);
  return sign | static_cast<uint16_t>(rounded >> 13);
}

uint16_t Bfloat16Bits(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

std::string PackFloat16(std::span<const float> vector) { return PackHalves(vector, Float16Bits); }
std::string PackBfloat16(std::span<const float> vector) { return PackHalves(vector, Bfloat16Bits); }

Int8Vector PackInt8(std::span<const float> vector) {
  float largest = 0;
  for (const float x : vector) largest = std::max(largest, std::abs(x));
  Int8Vector packed{.bytes = std::string(vector.size(), '\0'), .scale = largest / 127.0f};
  if (packed.scale == 0) return packed;
  for (size_t i = 0; i < vector.size(); ++i) {
    const float level = std::clamp(std::nearbyint(vector[i] / packed.scale), -127.0f, 127.0f);
    packed.bytes[i] = static_cast<char>(static_cast<int8_t>(level));
  }
  return packed;
}

std::string PackBinary(std::span<const float> vector) {
  std::string packed((vector.size() + 7) / 8, '\0');
  for (size_t i = 0; i < vector.size(); ++i) {
    if (vector[i] > 0) packed[i / 8] = static_cast<char>(packed[i / 8] | (0x80 >> (i % 8)));
  }
  return packed;
}

}  // namespace longembed
