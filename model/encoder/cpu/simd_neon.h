// Vectors of 4 lanes with NEON, which every 64-bit Arm processor has. Dot products of four bytes with FEAT_DotProd
// (SDOT) and without it, and of two bfloat16 with FEAT_BF16 (BFDOT). simd.h documents the functions. Only for
// kernels_neon.cc.
#ifndef LONGEMBED_MODEL_ENCODER_CPU_SIMD_NEON_H_
#define LONGEMBED_MODEL_ENCODER_CPU_SIMD_NEON_H_

#include <arm_neon.h>

#include "model/encoder/cpu/simd.h"

// Allows these instructions in inline assembly only. The compiler targets the base instruction set and never generates
// them itself.
asm(".arch armv8.2-a+dotprod+bf16");

namespace longembed::cpu {
namespace {

constexpr int kLanes = 4;
constexpr int kRegisters = 32;
constexpr bool kBfloat16Rows = true;  // Used only by sets with bfloat16 products.
constexpr int kInt8Middle = 0;

using Floats = float32x4_t;
using Words = int32x4_t;
using Mask = uint32x4_t;  // All bits of a lane are 1, or all are 0.

LONGEMBED_INLINE Mask FirstLanes(int count) {
  constexpr int32_t kIota[kLanes] = {0, 1, 2, 3};
  return vcgtq_s32(vdupq_n_s32(count), vld1q_s32(kIota));
}
LONGEMBED_INLINE Mask LanesBetween(int first, int last) { return vbicq_u32(FirstLanes(last), FirstLanes(first)); }
LONGEMBED_INLINE Mask Less(Floats a, Floats b) { return vcltq_f32(a, b); }
LONGEMBED_INLINE Floats Select(Mask mask, Floats yes, Floats no) { return vbslq_f32(mask, yes, no); }

LONGEMBED_INLINE Floats Repeat(float value) { return vdupq_n_f32(value); }
LONGEMBED_INLINE Words RepeatWord(int32_t value) { return vdupq_n_s32(value); }
LONGEMBED_INLINE Floats AsFloats(Words words) { return vreinterpretq_f32_s32(words); }
LONGEMBED_INLINE Words AsWords(Floats floats) { return vreinterpretq_s32_f32(floats); }

LONGEMBED_INLINE Floats Load(const float* from) { return vld1q_f32(from); }
LONGEMBED_INLINE Floats LoadFirst(const float* from, int count) {
  if (count >= kLanes) return Load(from);
  float lanes[kLanes] = {};
  for (int i = 0; i < count; ++i) lanes[i] = from[i];
  return vld1q_f32(lanes);
}
LONGEMBED_INLINE void Store(float* to, Floats values) { vst1q_f32(to, values); }
LONGEMBED_INLINE void StoreFirst(float* to, int count, Floats values) {
  if (count >= kLanes) return Store(to, values);
  float lanes[kLanes];
  vst1q_f32(lanes, values);
  for (int i = 0; i < count; ++i) to[i] = lanes[i];
}
LONGEMBED_INLINE Words LoadWords(const void* from) { return vld1q_s32(static_cast<const int32_t*>(from)); }
LONGEMBED_INLINE void StoreWords(void* to, Words words) { vst1q_s32(static_cast<int32_t*>(to), words); }
LONGEMBED_INLINE Words LoadHalfWords(const void* from) {
  return vreinterpretq_s32_u32(vshll_n_u16(vld1_u16(static_cast<const uint16_t*>(from)), 16));
}
LONGEMBED_INLINE void StoreFirstBytes(void* to, int count, Words words) {
  int32_t lanes[kLanes];
  vst1q_s32(lanes, words);
  for (int i = 0; i < Min(count, kLanes); ++i) static_cast<uint8_t*>(to)[i] = static_cast<uint8_t>(lanes[i]);
}

LONGEMBED_INLINE Floats Load(const Bfloat16* from) { return AsFloats(LoadHalfWords(from)); }
LONGEMBED_INLINE Floats LoadFirst(const Bfloat16* from, int count) {
  if (count >= kLanes) return Load(from);
  Bfloat16 lanes[kLanes] = {};
  for (int i = 0; i < count; ++i) lanes[i] = from[i];
  return Load(lanes);
}
// Converts float32 to bfloat16, rounding to nearest even. NaN stays NaN.
LONGEMBED_INLINE uint16x4_t ToBfloat16(Floats values) {
  const uint32x4_t bits = vreinterpretq_u32_f32(values);
  const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
  const uint32x4_t rounded = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
  const uint32x4_t quiet = vorrq_u32(bits, vdupq_n_u32(0x400000));
  return vshrn_n_u32(vbslq_u32(vceqq_f32(values, values), rounded, quiet), 16);
}
LONGEMBED_INLINE void Store(Bfloat16* to, Floats values) {
  vst1_u16(reinterpret_cast<uint16_t*>(to), ToBfloat16(values));
}
LONGEMBED_INLINE void StoreFirst(Bfloat16* to, int count, Floats values) {
  if (count >= kLanes) return Store(to, values);
  Bfloat16 lanes[kLanes];
  Store(lanes, values);
  for (int i = 0; i < count; ++i) to[i] = lanes[i];
}

LONGEMBED_INLINE Floats Fma(Floats a, Floats b, Floats c) { return vfmaq_f32(c, a, b); }
LONGEMBED_INLINE Floats Min(Floats a, Floats b) { return vminq_f32(a, b); }
LONGEMBED_INLINE Floats Max(Floats a, Floats b) { return vmaxq_f32(a, b); }
LONGEMBED_INLINE Floats Abs(Floats a) { return vabsq_f32(a); }
LONGEMBED_INLINE Floats Round(Floats a) { return vrndnq_f32(a); }
// Multiplies by a float made from the exponent's bits. Powers below the normal numbers become zero.
LONGEMBED_INLINE Floats TimesPowerOfTwo(Floats a, Floats whole) {
  const Words exponent = vcvtnq_s32_f32(Max(whole, Repeat(-127)));
  return a * AsFloats(vshlq_n_s32(vaddq_s32(exponent, RepeatWord(127)), 23));
}
LONGEMBED_INLINE float SumOf(Floats a) { return vaddvq_f32(a); }
LONGEMBED_INLINE float LargestOf(Floats a) { return vmaxvq_f32(a); }

LONGEMBED_INLINE Words AddWords(Words a, Words b) { return vaddq_s32(a, b); }
LONGEMBED_INLINE Words SubtractWords(Words a, Words b) { return vsubq_s32(a, b); }
LONGEMBED_INLINE Words MaxUnsigned(Words a, Words b) {
  return vreinterpretq_s32_u32(vmaxq_u32(vreinterpretq_u32_s32(a), vreinterpretq_u32_s32(b)));
}
LONGEMBED_INLINE uint32_t LargestUnsigned(Words a) { return vmaxvq_u32(vreinterpretq_u32_s32(a)); }
LONGEMBED_INLINE Words RoundToWords(Floats a) { return vcvtnq_s32_f32(a); }
LONGEMBED_INLINE Floats ToFloats(Words a) { return vcvtq_f32_s32(a); }

LONGEMBED_INLINE void Transpose(Words (&rows)[kLanes]) {
  const Words a = vtrn1q_s32(rows[0], rows[1]), b = vtrn2q_s32(rows[0], rows[1]);
  const Words c = vtrn1q_s32(rows[2], rows[3]), d = vtrn2q_s32(rows[2], rows[3]);
  const auto low = [](Words x, Words y) {
    return vreinterpretq_s32_s64(vtrn1q_s64(vreinterpretq_s64_s32(x), vreinterpretq_s64_s32(y)));
  };
  const auto high = [](Words x, Words y) {
    return vreinterpretq_s32_s64(vtrn2q_s64(vreinterpretq_s64_s32(x), vreinterpretq_s64_s32(y)));
  };
  rows[0] = low(a, c);
  rows[1] = low(b, d);
  rows[2] = high(a, c);
  rows[3] = high(b, d);
}

// Interleaves two rows of 2 * kLanes bfloat16 into words with one element of each. Only the first `columns` elements
// exist; the others are zeros. If `odd` is null, its elements are zeros.
LONGEMBED_INLINE void InterleaveHalfWords(const Bfloat16* even, const Bfloat16* odd, int columns, std::byte* to) {
  uint16_t rows[2][2 * kLanes] = {};
  const auto bytes = static_cast<size_t>(Min(columns, 2 * kLanes)) * sizeof(Bfloat16);
  if (columns > 0) __builtin_memcpy(rows[0], even, bytes);
  if (columns > 0 && odd != nullptr) __builtin_memcpy(rows[1], odd, bytes);
  const uint16x8_t a = vld1q_u16(rows[0]), b = vld1q_u16(rows[1]);
  StoreWords(to, vreinterpretq_s32_u16(vzip1q_u16(a, b)));
  StoreWords(to + sizeof(Words), vreinterpretq_s32_u16(vzip2q_u16(a, b)));
}

struct Bfloat16Dot : StoredSteps<Words> {
  static constexpr bool kBfloat16Results = true;
  using Sum = Floats;
  static LONGEMBED_INLINE Sum Step(Sum sum, Words a, Words b) {
    asm("bfdot %0.4s, %1.8h, %2.8h" : "+w"(sum) : "w"(a), "w"(b));
    return sum;
  }
};
struct DotprodDot : StoredSteps<Words> {
  static constexpr bool kBfloat16Results = true;
  using Sum = Words;
  static LONGEMBED_INLINE Sum Step(Sum sum, Words a, Words b) {
    asm("sdot %0.4s, %1.16b, %2.16b" : "+w"(sum) : "w"(a), "w"(b));
    return sum;
  }
};
// Multiplies in 16 bits, adds pairs of products in 32 bits, then adds pairs of these sums.
struct WideningDot : StoredSteps<Words> {
  using Sum = Words;
  static LONGEMBED_INLINE Sum Step(Sum sum, Words a, Words b) {
    const int8x16_t x = vreinterpretq_s8_s32(a), y = vreinterpretq_s8_s32(b);
    const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(x), vget_low_s8(y)));
    const int32x4_t high = vpaddlq_s16(vmull_high_s8(x, y));
    return vaddq_s32(sum, vpaddq_s32(low, high));
  }
};

}  // namespace
}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_SIMD_NEON_H_
