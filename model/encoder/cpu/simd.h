// Code that the kernels of all instruction sets share. The header of each set (simd_avx512.h, simd_avx2.h, simd_neon.h)
// includes this file and defines, in an anonymous namespace, vectors of kLanes lanes of 32 bits:
//
// - kLanes, kRegisters            number of lanes per vector, number of vector registers
// - kBfloat16Rows, kInt8Middle    Kernels::bfloat16_rows of its best set and Kernels::int8_middle (kernels.h)
// - Floats, Words, Mask           float32, 32-bit integers, one flag per lane; Floats have the operators + - * /
// - FirstLanes(count)             lanes [0, count): all if count >= kLanes, none if count <= 0
// - LanesBetween(first, last)     lanes [first, last)
// - Less(a, b), Select(mask, yes, no)
// - Repeat(float), RepeatWord(int32), AsFloats(Words), AsWords(Floats)  the last two reinterpret the bits
// - Load(from), Store(to, v)      whole vectors of float32 (or Bfloat16, if the set has products of them)
// - LoadFirst(from, count), StoreFirst(to, count, v)  only FirstLanes(count) of a vector; other lanes are loaded as
//                                 zeros, and no other memory is accessed
// - LoadWords, StoreWords         whole vectors of 32-bit words
// - LoadHalfWords(from)           16-bit values, each into the upper half of a word
// - StoreFirstBytes(to, count, w) the lowest byte of each word
// - Fma(a, b, c) = a b + c, Min, Max, Abs, Round (to nearest even), TimesPowerOfTwo(a, whole) for whole >= -2^31
// - SumOf, LargestOf, AddWords, SubtractWords, MaxUnsigned, LargestUnsigned, RoundToWords, ToFloats
// - Transpose(Words (&rows)[kLanes])
//
// It also defines dot products (see StoredSteps). Everything has internal linkage, and the few shared inline functions
// that are used are inlined. Otherwise the linker might use a copy with these instructions for the rest of the program.
// Only for kernels_*.cc, which are fully optimized in every build type.
#ifndef LONGEMBED_MODEL_ENCODER_CPU_SIMD_H_
#define LONGEMBED_MODEL_ENCODER_CPU_SIMD_H_

#include <cstddef>
#include <cstdint>

#include "model/encoder/cpu/packed_weights.h"
#include "model/encoder/cpu/rows.h"

namespace longembed::cpu {
namespace {

#define LONGEMBED_INLINE inline __attribute__((always_inline))

LONGEMBED_INLINE int Min(int a, int b) { return a < b ? a : b; }
LONGEMBED_INLINE int Max(int a, int b) { return a > b ? a : b; }

struct Bfloat16 {
  uint16_t bits;
};

template <typename T>
LONGEMBED_INLINE T* RowOf(Rows rows, ptrdiff_t row) {
  return reinterpret_cast<T*>(rows.data + row * rows.stride);
}

template <int kValue>
struct Constant {
  static constexpr int value = kValue;
  LONGEMBED_INLINE constexpr operator int() const { return kValue; }
};

// Calls body(Constant<value>()) for a value in [1, kMax]. This converts a run-time value to a compile-time constant.
template <int kMax, typename Body>
LONGEMBED_INLINE void WithConstant(int value, const Body& body) {
  if (value == kMax) {
    body(Constant<kMax>());
  } else if constexpr (kMax > 1) {
    WithConstant<kMax - 1>(value, body);
  }
}

// Returns the number of rows of the next tile if `left` rows are left and a tile has at most `max_rows`. Tiles are as
// equal as possible, because a small tile makes poor use of the registers.
LONGEMBED_INLINE int NextTile(int left, int max_rows) {
  const int tiles = (left + max_rows - 1) / max_rows;
  return (left + tiles - 1) / tiles;
}

// A base of dot products. A dot product processes a row in steps of four bytes: `Step(sum, a, b)` adds the product of
// four bytes of a row, repeated in every lane of `a`, and four bytes of each of kLanes outputs, `b`. `Load` reads `b`
// from kVectorBytes of memory.
template <typename Vector>
struct StoredSteps {
  static constexpr int kVectorBytes = sizeof(Vector);
  static constexpr bool kBfloat16Results = false;  // Whether results may be stored as bfloat16.
  static LONGEMBED_INLINE Vector Load(const std::byte* from) {
    Vector words;
    __builtin_memcpy(&words, from, sizeof(words));
    return words;
  }
};

}  // namespace
}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_SIMD_H_
