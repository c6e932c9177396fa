// Vectors of 8 lanes with AVX2 and FMA, and dot products of four bytes with and without AVX-VNNI. There are no bfloat16
// products; bfloat16 weights are widened when loaded. simd.h documents the functions. Only for kernels_avx2.cc.
#ifndef LONGEMBED_MODEL_ENCODER_CPU_SIMD_AVX2_H_
#define LONGEMBED_MODEL_ENCODER_CPU_SIMD_AVX2_H_

#include <immintrin.h>

#include "model/encoder/cpu/simd.h"

namespace longembed::cpu {
namespace {

constexpr int kLanes = 8;
constexpr int kRegisters = 16;
constexpr bool kBfloat16Rows = false;
constexpr int kInt8Middle = 128;

using Floats = __m256;
using Words = __m256i;
using Mask = __m256i;  // All bits of a lane are 1, or all are 0.

LONGEMBED_INLINE Words Iota() { return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7); }
LONGEMBED_INLINE Mask FirstLanes(int count) { return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), Iota()); }
LONGEMBED_INLINE Mask LanesBetween(int first, int last) {
  return _mm256_andnot_si256(FirstLanes(first), FirstLanes(last));
}
LONGEMBED_INLINE Mask Less(Floats a, Floats b) { return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_LT_OQ)); }
LONGEMBED_INLINE Floats Select(Mask mask, Floats yes, Floats no) {
  return _mm256_blendv_ps(no, yes, _mm256_castsi256_ps(mask));
}

LONGEMBED_INLINE Floats Repeat(float value) { return _mm256_set1_ps(value); }
LONGEMBED_INLINE Words RepeatWord(int32_t value) { return _mm256_set1_epi32(value); }
LONGEMBED_INLINE Floats AsFloats(Words words) { return _mm256_castsi256_ps(words); }
LONGEMBED_INLINE Words AsWords(Floats floats) { return _mm256_castps_si256(floats); }

LONGEMBED_INLINE Floats Load(const float* from) { return _mm256_loadu_ps(from); }
LONGEMBED_INLINE Floats LoadFirst(const float* from, int count) {
  return count >= kLanes ? Load(from) : _mm256_maskload_ps(from, FirstLanes(count));
}
LONGEMBED_INLINE void Store(float* to, Floats values) { _mm256_storeu_ps(to, values); }
// Avoids masked stores of whole vectors, which take tens of cycles on some processors.
LONGEMBED_INLINE void StoreFirst(float* to, int count, Floats values) {
  if (count >= kLanes) {
    Store(to, values);
  } else {
    _mm256_maskstore_ps(to, FirstLanes(count), values);
  }
}
LONGEMBED_INLINE Words LoadWords(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
LONGEMBED_INLINE void StoreWords(void* to, Words words) { _mm256_storeu_si256(static_cast<__m256i*>(to), words); }
LONGEMBED_INLINE Words LoadHalfWords(const void* from) {
  return _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(static_cast<const __m128i*>(from))), 16);
}
LONGEMBED_INLINE void StoreFirstBytes(void* to, int count, Words words) {
  const Words lowest = _mm256_shuffle_epi8(words, _mm256_set1_epi32(0x0c080400));
  const auto low = static_cast<uint32_t>(_mm256_extract_epi32(lowest, 0));
  const auto high = static_cast<uint32_t>(_mm256_extract_epi32(lowest, 4));
  const uint64_t bytes = low | static_cast<uint64_t>(high) << 32;
  if (count >= kLanes) {
    __builtin_memcpy(to, &bytes, kLanes);
  } else {
    for (int i = 0; i < count; ++i) static_cast<uint8_t*>(to)[i] = static_cast<uint8_t>(bytes >> (8 * i));
  }
}

LONGEMBED_INLINE Floats Fma(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
LONGEMBED_INLINE Floats Min(Floats a, Floats b) { return _mm256_min_ps(a, b); }
LONGEMBED_INLINE Floats Max(Floats a, Floats b) { return _mm256_max_ps(a, b); }
LONGEMBED_INLINE Floats Abs(Floats a) { return _mm256_andnot_ps(Repeat(-0.0f), a); }
LONGEMBED_INLINE Floats Round(Floats a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
// Multiplies by a float made from the exponent's bits. Powers below the normal numbers become zero.
LONGEMBED_INLINE Floats TimesPowerOfTwo(Floats a, Floats whole) {
  const Words exponent = _mm256_cvtps_epi32(Max(whole, Repeat(-127)));
  return a * AsFloats(_mm256_slli_epi32(_mm256_add_epi32(exponent, RepeatWord(127)), 23));
}

// Combines the lanes by halves: 8, 4, 2, 1.
template <typename Combine>
LONGEMBED_INLINE __m128 Reduce(Floats a, const Combine& combine) {
  __m128 half = combine(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  half = combine(half, _mm_movehl_ps(half, half));
  return combine(half, _mm_movehdup_ps(half));
}
LONGEMBED_INLINE float SumOf(Floats a) {
  return _mm_cvtss_f32(Reduce(a, [](__m128 x, __m128 y) { return _mm_add_ps(x, y); }));
}
LONGEMBED_INLINE float LargestOf(Floats a) {
  return _mm_cvtss_f32(Reduce(a, [](__m128 x, __m128 y) { return _mm_max_ps(x, y); }));
}

LONGEMBED_INLINE Words AddWords(Words a, Words b) { return _mm256_add_epi32(a, b); }
LONGEMBED_INLINE Words SubtractWords(Words a, Words b) { return _mm256_sub_epi32(a, b); }
LONGEMBED_INLINE Words MaxUnsigned(Words a, Words b) { return _mm256_max_epu32(a, b); }
LONGEMBED_INLINE uint32_t LargestUnsigned(Words a) {
  const auto larger = [](__m128 x, __m128 y) {
    return _mm_castsi128_ps(_mm_max_epu32(_mm_castps_si128(x), _mm_castps_si128(y)));
  };
  return static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_castps_si128(Reduce(AsFloats(a), larger))));
}
LONGEMBED_INLINE Words RoundToWords(Floats a) { return _mm256_cvtps_epi32(a); }
LONGEMBED_INLINE Floats ToFloats(Words a) { return _mm256_cvtepi32_ps(a); }

LONGEMBED_INLINE void Transpose(Words (&rows)[kLanes]) {
  Words t[kLanes];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t[2 * i] = _mm256_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
    t[2 * i + 1] = _mm256_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    rows[4 * i] = _mm256_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    rows[4 * i + 1] = _mm256_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    rows[4 * i + 2] = _mm256_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    rows[4 * i + 3] = _mm256_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const Words low = rows[i], high = rows[i + 4];
    rows[i] = _mm256_permute2x128_si256(low, high, 0x20);
    rows[i + 4] = _mm256_permute2x128_si256(low, high, 0x31);
  }
}

struct Bfloat16Dot;  // Not defined: AVX2 has no bfloat16 products.

struct VnniDot : StoredSteps<Words> {
  using Sum = Words;
  // Uses AVX-VNNI's encoding, which the compiler would not choose for a processor without AVX-512.
  static LONGEMBED_INLINE Sum Step(Sum sum, Words a, Words b) {
    asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b));
    return sum;
  }
};
// Adds two products in 16 bits, then two of these sums in 32 bits. Packed weights prevent 16-bit saturation
// (Kernels::int8_pairs).
struct MaddDot : StoredSteps<Words> {
  using Sum = Words;
  static LONGEMBED_INLINE Sum Step(Sum sum, Words a, Words b) {
    const Words pairs = _mm256_maddubs_epi16(a, b);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
};

}  // namespace
}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_SIMD_AVX2_H_
