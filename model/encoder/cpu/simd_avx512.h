// What the AVX-512 kernels share: masked loads and stores of both element types, exp2 and erf, and the tile of a matrix
// product that stays in registers. Only for files that are compiled for AVX-512, whatever the build type with full
// optimisation: everything here has internal linkage, and the few shared inline functions that are used are inlined, so
// that the linker does not take a copy with these instructions for the rest of the program.
#ifndef LONGEMBED_MODEL_ENCODER_CPU_SIMD_AVX512_H_
#define LONGEMBED_MODEL_ENCODER_CPU_SIMD_AVX512_H_

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "model/encoder/cpu/packed_weights.h"
#include "model/encoder/cpu/rows.h"

namespace longembed::cpu {
namespace {

#define LONGEMBED_INLINE inline __attribute__((always_inline))

LONGEMBED_INLINE int Min(int a, int b) { return a < b ? a : b; }
LONGEMBED_INLINE int Max(int a, int b) { return a > b ? a : b; }

// Lanes [0, count) of a vector; all of them when count is 16 or more, none when it is 0 or less.
LONGEMBED_INLINE __mmask16 FirstLanes(int count) {
  return static_cast<__mmask16>(count >= kLanes ? 0xffff : count <= 0 ? 0 : (1u << count) - 1);
}

struct Bfloat16 {
  uint16_t bits;
};

LONGEMBED_INLINE __m512 Load(const float* from, __mmask16 lanes) { return _mm512_maskz_loadu_ps(lanes, from); }
LONGEMBED_INLINE __m512 Load(const Bfloat16* from, __mmask16 lanes) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, from)), 16));
}

LONGEMBED_INLINE void Store(float* to, __mmask16 lanes, __m512 values) { _mm512_mask_storeu_ps(to, lanes, values); }
// bfloat16 rows exist only where the processor has AVX512-BF16 (cpu_encoder.cc).
LONGEMBED_INLINE void Store(Bfloat16* to, __mmask16 lanes, __m512 values) {
  _mm256_mask_storeu_epi16(to, lanes, reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(values)));
}

template <typename T>
LONGEMBED_INLINE T* RowOf(Rows rows, ptrdiff_t row) {
  return reinterpret_cast<T*>(rows.data + row * rows.stride);
}

// Calls `body` with a null pointer of the element's type: body(static_cast<float*>(nullptr)).
template <typename Body>
LONGEMBED_INLINE void WithElement(Element element, const Body& body) {
  if (element == Element::kFloat32) {
    body(static_cast<float*>(nullptr));
  } else {
    body(static_cast<Bfloat16*>(nullptr));
  }
}

// 2^x = 2^whole * 2^part, |part| <= 1/2: relative error below 2e-7 (the polynomial of Cephes' exp2f). x is finite.
LONGEMBED_INLINE __m512 Exp2(__m512 x) {
  const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 part = _mm512_sub_ps(x, whole);
  __m512 sum = _mm512_set1_ps(1.535336188319500e-4f);
  sum = _mm512_fmadd_ps(sum, part, _mm512_set1_ps(1.339887440266574e-3f));
  sum = _mm512_fmadd_ps(sum, part, _mm512_set1_ps(9.618437357674640e-3f));
  sum = _mm512_fmadd_ps(sum, part, _mm512_set1_ps(5.550332471162809e-2f));
  sum = _mm512_fmadd_ps(sum, part, _mm512_set1_ps(2.402264791363012e-1f));
  sum = _mm512_fmadd_ps(sum, part, _mm512_set1_ps(6.931472028550421e-1f));
  sum = _mm512_fmadd_ps(sum, part, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(sum, whole);
}

// The same with relative error below 5e-6, for what is rounded to bfloat16 next (4e-3).
LONGEMBED_INLINE __m512 RoughExp2(__m512 x) {
  const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 part = _mm512_sub_ps(x, whole);
  __m512 sum = _mm512_set1_ps(9.570247432e-03f);
  sum = _mm512_fmadd_ps(sum, part, _mm512_set1_ps(5.597135799e-02f));
  sum = _mm512_fmadd_ps(sum, part, _mm512_set1_ps(2.402524454e-01f));
  sum = _mm512_fmadd_ps(sum, part, _mm512_set1_ps(6.931132973e-01f));
  sum = _mm512_fmadd_ps(sum, part, _mm512_set1_ps(9.999987971e-01f));
  return _mm512_scalef_ps(sum, whole);
}

// erf(x), absolute error below 3e-7: the rational approximation of Eigen's erf for floats (x P(x^2) / Q(x^2) on [-4,
// 4]).
LONGEMBED_INLINE __m512 Erf(__m512 x) {
  x = _mm512_min_ps(_mm512_max_ps(x, _mm512_set1_ps(-4.0f)), _mm512_set1_ps(4.0f));
  const __m512 square = _mm512_mul_ps(x, x);
  __m512 p = _mm512_set1_ps(-2.72614225801306e-10f);
  p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(2.77068142495902e-08f));
  p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(-2.10102402082508e-06f));
  p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(-5.69250639462346e-05f));
  p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(-7.34990630326855e-04f));
  p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(-2.95459980854025e-03f));
  p = _mm512_fmadd_ps(p, square, _mm512_set1_ps(-1.60960333262415e-02f));
  __m512 q = _mm512_set1_ps(-1.45660718464996e-05f);
  q = _mm512_fmadd_ps(q, square, _mm512_set1_ps(-2.13374055278905e-04f));
  q = _mm512_fmadd_ps(q, square, _mm512_set1_ps(-1.68282697438203e-03f));
  q = _mm512_fmadd_ps(q, square, _mm512_set1_ps(-7.37332916720468e-03f));
  q = _mm512_fmadd_ps(q, square, _mm512_set1_ps(-1.42647390514189e-02f));
  return _mm512_div_ps(_mm512_mul_ps(x, p), q);
}

LONGEMBED_INLINE __m512 Gelu(__m512 x) {
  const __m512 half = _mm512_mul_ps(x, _mm512_set1_ps(0.5f));
  return _mm512_fmadd_ps(half, Erf(_mm512_mul_ps(x, _mm512_set1_ps(0.70710678118654752f))), half);
}

// x / (1 + e^-z). Exp2 takes nothing above zero: for z < 0, e^-z = 1 / e^z, and the whole is x e^z / (1 + e^z).
LONGEMBED_INLINE __m512 TimesSigmoid(__m512 x, __m512 z) {
  constexpr float kMinusLog2E = -1.44269504088896f;
  const __m512 power = Exp2(_mm512_mul_ps(_mm512_abs_ps(z), _mm512_set1_ps(kMinusLog2E)));
  const __mmask16 negative = _mm512_cmp_ps_mask(z, _mm512_setzero_ps(), _CMP_LT_OQ);
  const __m512 numerator = _mm512_mask_mul_ps(x, negative, x, power);
  return _mm512_div_ps(numerator, _mm512_add_ps(power, _mm512_set1_ps(1.0f)));
}

// 1 + tanh(u) = 2 / (1 + e^-2u). Beyond 16 either way the sigmoid is 0 or 1, and the cube stays finite.
LONGEMBED_INLINE __m512 GeluTanh(__m512 x) {
  const __m512 c = _mm512_min_ps(_mm512_max_ps(x, _mm512_set1_ps(-16.0f)), _mm512_set1_ps(16.0f));
  const __m512 square = _mm512_mul_ps(c, c);
  const __m512 slope = _mm512_fmadd_ps(square, _mm512_set1_ps(0.0713548162726009f), _mm512_set1_ps(1.59576912160573f));
  return TimesSigmoid(x, _mm512_mul_ps(c, slope));
}

// Absolute error below 2e-7.
LONGEMBED_INLINE __m512 Tanh(__m512 x) {
  return _mm512_sub_ps(TimesSigmoid(_mm512_set1_ps(2.0f), _mm512_add_ps(x, x)), _mm512_set1_ps(1.0f));
}

// One step of a dot product: four bytes of a row, in every lane of `a`, against four bytes of 16 outputs.
struct StoredSteps {
  static constexpr int kVectorBytes = 64;  // That the weights of 16 outputs take.
  static LONGEMBED_INLINE __m512i Load(const std::byte* from) { return _mm512_load_si512(from); }
};
struct Float32Dot : StoredSteps {
  using Sum = __m512;
  static LONGEMBED_INLINE Sum Zero() { return _mm512_setzero_ps(); }
  static LONGEMBED_INLINE Sum Step(Sum sum, __m512i a, __m512i b) {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum);
  }
};
// float32 rows against weights that are stored in bfloat16.
struct WidenedDot : Float32Dot {
  static constexpr int kVectorBytes = 32;
  static LONGEMBED_INLINE __m512i Load(const std::byte* from) {
    return _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_load_si256(reinterpret_cast<const __m256i*>(from))), 16);
  }
};
struct Bfloat16Dot : StoredSteps {
  using Sum = __m512;
  static LONGEMBED_INLINE Sum Zero() { return _mm512_setzero_ps(); }
  static LONGEMBED_INLINE Sum Step(Sum sum, __m512i a, __m512i b) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
};
struct Int8Dot : StoredSteps {
  using Sum = __m512i;
  static LONGEMBED_INLINE Sum Zero() { return _mm512_setzero_si512(); }
  // GCC 12 copies and spills the sums around its own intrinsic (_mm512_dpbusd_epi32), at half the speed.
  static LONGEMBED_INLINE Sum Step(Sum sum, __m512i a, __m512i b) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
  }
};

// kRows rows against kVectors * 16 outputs, all sums in registers. A step of `b` is kStepVectors vectors. `start(r, v)`
// gives the sum to begin with; `finish(r, v, sum)` takes the result.
template <typename Dot, int kRows, int kVectors, int kStepVectors, typename Start, typename Finish>
LONGEMBED_INLINE void MultiplyTile(int steps, const std::byte* a, ptrdiff_t a_stride, const std::byte* b,
                                   const Start& start, const Finish& finish) {
  // Weights stream from memory or the last-level cache: asked for this far ahead they arrive in time. Measured on one
  // core, 64 rows, float32: 231 -> 248 GFLOP/s; 16 rows: 174 -> 210.
  constexpr ptrdiff_t kPrefetchBytes = 8192;
  typename Dot::Sum sums[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sums[r][v] = start(r, v);
  }
  for (int step = 0; step < steps; ++step, a += kStepBytes, b += Dot::kVectorBytes * kStepVectors) {
    __m512i outputs[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      outputs[v] = Dot::Load(b + Dot::kVectorBytes * v);
      _mm_prefetch(reinterpret_cast<const char*>(b + Dot::kVectorBytes * v + kPrefetchBytes), _MM_HINT_T1);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      int32_t bytes;
      __builtin_memcpy(&bytes, a + r * a_stride, sizeof(bytes));
      const __m512i row = _mm512_set1_epi32(bytes);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sums[r][v] = Dot::Step(sums[r][v], row, outputs[v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) finish(r, v, sums[r][v]);
  }
}

template <int kValue>
struct Constant {
  static constexpr int value = kValue;
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

}  // namespace
}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_SIMD_AVX512_H_
