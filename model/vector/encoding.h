// Compact encodings of a vector for the wire. Stateless functions that any thread can call.
#ifndef LONGEMBED_MODEL_VECTOR_ENCODING_H_
#define LONGEMBED_MODEL_VECTOR_ENCODING_H_

#include <cstdint>
#include <span>
#include <string>

namespace longembed {

// Magnitudes from which on a component rounds to infinity.
inline constexpr float kBeyondFloat16 = 65520;
inline constexpr float kBeyondBfloat16 = 0x1.ffp127f;

// Encodes a vector as IEEE 754 binary16, little endian, 2 bytes per component, rounded to nearest even. Values from
// +-kBeyondFloat16 on become infinite.
std::string PackFloat16(std::span<const float> vector);

// Encodes a vector as bfloat16, the upper half of binary32: little endian, 2 bytes per component, rounded to nearest
// even.
std::string PackBfloat16(std::span<const float> vector);

struct Int8Vector {
  std::string bytes;  // One signed byte per component.
  // A component is byte * scale. The scale is max |component| / 127, or 0 for a zero vector.
  float scale = 0;
};
Int8Vector PackInt8(std::span<const float> vector);

// Encodes a vector as one bit per component: 1 if the component is above 0, else 0. The first component is the highest
// bit of the first byte, as in numpy.packbits. Padded with 0 bits.
std::string PackBinary(std::span<const float> vector);

// Return the bits of `value` as binary16 and as bfloat16, rounded to nearest even.
uint16_t Float16Bits(float value);
uint16_t Bfloat16Bits(float value);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_VECTOR_ENCODING_H_
