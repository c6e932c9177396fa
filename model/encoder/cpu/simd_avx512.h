// Vectors of 16 lanes with AVX-512 (F, BW, DQ, VL), and dot products of four bytes with VNNI, with BF16, and without
// either. simd.h documents the functions. Only for kernels_avx512.cc.
#ifndef LONGEMBED_MODEL_ENCODER_CPU_SIMD_AVX512_H_
#define LONGEMBED_MODEL_ENCODER_CPU_SIMD_AVX512_H_

#include <immintrin.h>

#include "model/encoder/cpu/simd.h"

namespace longembed::cpu {
namespace {

constexpr int kLanes = 16;
constexpr int kRegisters = 32;
constexpr bool kBfloat16Rows = true;  // Used only by sets with bfloat16 products.
constexpr int kInt8Middle = 128;

using Floats = __m512;
using Words = __m512i;
using Mask = __mmask16;

LONGEMBED_INLINE Mask FirstLanes(int count) {
  return static_cast<Mask>(count >= kLanes ? 0xffff : count <= 0 ? 0 : (1u << count) - 1);
}
LONGEMBED_INLINE Mask LanesBetween(int first, int last) {
  return static_cast<Mask>(FirstLanes(last) & ~FirstLanes(first));
}
LONGEMBED_INLINE Mask Less(Floats a, Floats b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
LONGEMBED_INLINE Floats Select(Mask mask, Floats yes, Floats no) { return _mm512_mask_mov_ps(no, mask, yes); }

LONGEMBED_INLINE Floats Repeat(float value) { return _mm512_set1_ps(value); }
LONGEMBED_INLINE Words RepeatWord(int32_t value) { return _mm512_set1_epi32(value); }
LONGEMBED_INLINE Floats AsFloats(Words words) { return _mm512_castsi512_ps(words); }
LONGEMBED_INLINE Words AsWords(Floats floats) { return _mm512_castps_si512(floats); }

LONGEMBED_INLINE Floats Load(const float* from) { return _mm512_loadu_ps(from); }
LONGEMBED_INLINE Floats LoadFirst(const float* from, int count) {
  return _mm512_maskz_loadu_ps(FirstLanes(count), from);
}
LONGEMBED_INLINE void Store(float* to, Floats values) { _mm512_storeu_ps(to, values); }
LONGEMBED_INLINE void StoreFirst(float* to, int count, Floats values) {
  _mm512_mask_storeu_ps(to, FirstLanes(count), values);
}
LONGEMBED_INLINE Words LoadWords(const void* from) { return _mm512_loadu_si512(from); }
LONGEMBED_INLINE void StoreWords(void* to, Words words) { _mm512_storeu_si512(to, words); }
LONGEMBED_INLINE Words LoadHalfWords(const void* from) {
  return _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(from))), 16);
}
LONGEMBED_INLINE void StoreFirstBytes(void* to, int count, Words words) {
  _mm_mask_storeu_epi8(to, FirstLanes(count), _mm512_cvtepi32_epi8(words));
}

LONGEMBED_INLINE Floats Load(const Bfloat16* from) { return AsFloats(LoadHalfWords(from)); }
LONGEMBED_INLINE Floats LoadFirst(const Bfloat16* from, int count) {
  return AsFloats(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(FirstLanes(count), from)), 16));
}
LONGEMBED_INLINE void Store(Bfloat16* to, Floats values) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(values)));
}
LONGEMBED_INLINE void StoreFirst(Bfloat16* to, int count, Floats values) {
  _mm256_mask_storeu_epi16(to, FirstLanes(count), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(values)));
}

LONGEMBED_INLINE Floats Fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
LONGEMBED_INLINE Floats Min(Floats a, Floats b) { return _mm512_min_ps(a, b); }
LONGEMBED_INLINE Floats Max(Floats a, Floats b) { return _mm512_max_ps(a, b); }
LONGEMBED_INLINE Floats Abs(Floats a) { return _mm512_abs_ps(a); }
LONGEMBED_INLINE Floats Round(Floats a) {
  return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
LONGEMBED_INLINE Floats TimesPowerOfTwo(Floats a, Floats whole) { return _mm512_scalef_ps(a, whole); }
LONGEMBED_INLINE float SumOf(Floats a) { return _mm512_reduce_add_ps(a); }
LONGEMBED_INLINE float LargestOf(Floats a) { return _mm512_reduce_max_ps(a); }

LONGEMBED_INLINE Words AddWords(Words a, Words b) { return _mm512_add_epi32(a, b); }
LONGEMBED_INLINE Words SubtractWords(Words a, Words b) { return _mm512_sub_epi32(a, b); }
LONGEMBED_INLINE Words MaxUnsigned(Words a, Words b) { return _mm512_max_epu32(a, b); }
LONGEMBED_INLINE uint32_t LargestUnsigned(Words a) { return _mm512_reduce_max_epu32(a); }
LONGEMBED_INLINE Words RoundToWords(Floats a) { return _mm512_cvtps_epi32(a); }
LONGEMBED_INLINE Floats ToFloats(Words a) { return _mm512_cvtepi32_ps(a); }

LONGEMBED_INLINE void Transpose(Words (&rows)[kLanes]) {
  Words t[kLanes];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    rows[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    rows[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    rows[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    rows[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(rows[i], rows[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(rows[i], rows[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(rows[i + 8], rows[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(rows[i + 8], rows[i + 12], 0xdd);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    rows[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    rows[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    rows[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    rows[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
  }
}

// Interleaves two rows of 2 * kLanes bfloat16 into words with one element of each. Only the first `columns` elements
// exist; the others are zeros. If `odd` is null, its elements are zeros.
LONGEMBED_INLINE void InterleaveHalfWords(const Bfloat16* even, const Bfloat16* odd, int columns, std::byte* to) {
  const auto lanes = static_cast<__mmask32>(columns >= 2 * kLanes ? 0xffffffffu : (1u << columns) - 1);
  const Words a = _mm512_maskz_loadu_epi16(lanes, even);
  const Words b = odd == nullptr ? _mm512_setzero_si512() : _mm512_maskz_loadu_epi16(lanes, odd);
  const Words low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5,
                                     36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
  const Words high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
  StoreWords(to, _mm512_permutex2var_epi16(a, low, b));
  StoreWords(to + sizeof(Words), _mm512_permutex2var_epi16(a, high, b));
}

struct Bfloat16Dot : StoredSteps<Words> {
  static constexpr bool kBfloat16Results = true;
  using Sum = Floats;
  static LONGEMBED_INLINE Sum Step(Sum sum, Words a, Words b) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
};
struct VnniDot : StoredSteps<Words> {
  static constexpr bool kBfloat16Results = true;
  using Sum = Words;
  // Inline assembly is twice as fast here: GCC 12 copies and spills the sums around its intrinsic
  // (_mm512_dpbusd_epi32).
  static LONGEMBED_INLINE Sum Step(Sum sum, Words a, Words b) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
  }
};
// Adds two products in 16 bits, then two of these sums in 32 bits. Packed weights prevent 16-bit saturation
// (Kernels::int8_pairs).
struct MaddDot : StoredSteps<Words> {
  using Sum = Words;
  static LONGEMBED_INLINE Sum Step(Sum sum, Words a, Words b) {
    const Words pairs = _mm512_maddubs_epi16(a, b);
    return _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
  }
};

}  // namespace
}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_SIMD_AVX512_H_
