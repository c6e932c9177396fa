// What the kernels of every instruction set share. A set's header (simd_avx512.h, simd_avx2.h, simd_neon.h) includes
// this file and defines, for vectors of kLanes lanes of 32 bits, in an anonymous namespace:
//
// - kLanes, kRegisters            lanes of a vector, vector registers
// - kBfloat16Rows, kInt8Middle    as Kernels has them (kernels.h), for the best of its sets
// - Floats, Words, Mask           float32, 32-bit integers, one flag a lane; Floats have the operators + - * /
// - FirstLanes(count)             lanes [0, count): all when count >= kLanes, none when count <= 0
// - LanesBetween(first, last)     lanes [first, last)
// - Less(a, b), Select(mask, yes, no)
// - Repeat(float), RepeatWord(int32), AsFloats(Words), AsWords(Floats)  the last two keep the bits
// - Load(from), Store(to, v)      whole vectors of float32 (or Bfloat16, where products of them are an instruction);
// - LoadFirst(from, count), StoreFirst(to, count, v)  FirstLanes(count) of them, zeros elsewhere; nothing else is
// touched
// - LoadWords, StoreWords         whole vectors of 32-bit words
// - LoadHalfWords(from)           16-bit halves, each the upper half of a word
// - StoreFirstBytes(to, count, w) the lowest byte of each word
// - Fma(a, b, c) = a b + c, Min, Max, Abs, Round (to nearest even), TimesPowerOfTwo(a, whole) for whole >= -2^31
// - SumOf, LargestOf, AddWords, SubtractWords, MaxUnsigned, LargestUnsigned, RoundToWords, ToFloats
// - Transpose(Words (&rows)[kLanes])
//
// and dot products (below). Everything has internal linkage, and the few shared inline functions that are used are
// inlined, so that the linker does not take a copy with these instructions for the rest of the program. Only for
// kernels_*.cc, which are compiled with full optimization whatever the build type.
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

// Calls body(Constant<value>()) for a value in [1, kMax]: from a number at run time to one at compile time.
template <int kMax, typename Body>
LONGEMBED_INLINE void WithConstant(int value, const Body& body) {
  if (value == kMax) {
    body(Constant<kMax>());
  } else if constexpr (kMax > 1) {
    WithConstant<kMax - 1>(value, body);
  }
}

// How many rows the next tile takes, when `left` rows are left and a tile holds at most `most`: tiles as equal as they
// can be, because a small tile uses the registers badly.
LONGEMBED_INLINE int NextTile(int left, int most) {
  const int tiles = (left + most - 1) / most;
  return (left + tiles - 1) / tiles;
}

// A dot product goes along a row in steps of four bytes: `Step(sum, a, b)` adds the product of four bytes of a row, in
// every lane of `a`, and four bytes of kLanes outputs. `Load` reads the latter from kVectorBytes.
template <typename Vector>
struct StoredSteps {
  static constexpr int kVectorBytes = sizeof(Vector);
  static constexpr bool kBfloat16Results = false;  // Whether results may be stored so.
  static LONGEMBED_INLINE Vector Load(const std::byte* from) {
    Vector words;
    __builtin_memcpy(&words, from, sizeof(words));
    return words;
  }
};

}  // namespace
}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_SIMD_H_
