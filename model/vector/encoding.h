// Compact forms of a vector for the wire. Stateless: any thread.
#ifndef LONGEMBED_MODEL_VECTOR_ENCODING_H_
#define LONGEMBED_MODEL_VECTOR_ENCODING_H_

#include <cstdint>
#include <span>
#include <string>

namespace longembed {

// IEEE 754 binary16, little endian, 2 bytes a component, rounded to nearest even; beyond +-65504 it becomes infinite.
std::string PackFloat16(std::span<const float> vector);

// The upper half of binary32, little endian, 2 bytes a component, rounded to nearest even.
std::string PackBfloat16(std::span<const float> vector);

struct Int8Vector {
  std::string bytes;  // One signed byte a component.
  float scale = 0;    // Component = byte * scale; scale = max |component| / 127, 0 for a zero vector.
};
Int8Vector PackInt8(std::span<const float> vector);

// One bit a component, 1 where it is > 0: the first component in the highest bit of the first byte, as numpy.packbits
// does; padded with 0.
std::string PackBinary(std::span<const float> vector);

// The bits of `value` as binary16 and as bfloat16, rounded to nearest even.
uint16_t Float16Bits(float value);
uint16_t Bfloat16Bits(float value);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_VECTOR_ENCODING_H_
