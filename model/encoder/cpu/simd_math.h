// Math functions over vectors of any instruction set, and the tile of a matrix product that stays in registers. Include
// it after a set's own header (simd.h).
#ifndef LONGEMBED_MODEL_ENCODER_CPU_SIMD_MATH_H_
#define LONGEMBED_MODEL_ENCODER_CPU_SIMD_MATH_H_

#include "model/encoder/cpu/simd.h"

namespace longembed::cpu {
namespace {

// Calls `body` with a null pointer to the element's type, such as body(static_cast<float*>(nullptr)).
template <typename Body>
LONGEMBED_INLINE void WithElement(Element element, const Body& body) {
  if constexpr (kBfloat16Rows) {
    if (element == Element::kBfloat16) return body(static_cast<Bfloat16*>(nullptr));
  }
  body(static_cast<float*>(nullptr));
}

// Calls body(column, count) for every vector of a row. The first `count` lanes of the vector are columns of the row. If
// all are, `count` is Constant<kLanes>.
template <typename Body>
LONGEMBED_INLINE void ForVectors(int width, const Body& body) {
  int j = 0;
  for (; j + kLanes <= width; j += kLanes) body(j, Constant<kLanes>());
  if (j < width) body(j, width - j);
}

// Returns 2^x = 2^whole * 2^part with |part| <= 1/2. The relative error is below 2e-7 (polynomial of Cephes' exp2f).
// Requires x < 128.
LONGEMBED_INLINE Floats Exp2(Floats x) {
  const Floats whole = Round(x);
  const Floats part = x - whole;
  Floats sum = Repeat(1.535336188319500e-4f);
  sum = Fma(sum, part, Repeat(1.339887440266574e-3f));
  sum = Fma(sum, part, Repeat(9.618437357674640e-3f));
  sum = Fma(sum, part, Repeat(5.550332471162809e-2f));
  sum = Fma(sum, part, Repeat(2.402264791363012e-1f));
  sum = Fma(sum, part, Repeat(6.931472028550421e-1f));
  sum = Fma(sum, part, Repeat(1.0f));
  return TimesPowerOfTwo(sum, whole);
}

// Returns 2^x with a relative error below 5e-6, for results that are then rounded to bfloat16 (4e-3).
LONGEMBED_INLINE Floats RoughExp2(Floats x) {
  const Floats whole = Round(x);
  const Floats part = x - whole;
  Floats sum = Repeat(9.570247432e-03f);
  sum = Fma(sum, part, Repeat(5.597135799e-02f));
  sum = Fma(sum, part, Repeat(2.402524454e-01f));
  sum = Fma(sum, part, Repeat(6.931132973e-01f));
  sum = Fma(sum, part, Repeat(9.999987971e-01f));
  return TimesPowerOfTwo(sum, whole);
}

// Returns erf(x) with an absolute error below 3e-7. This is the rational approximation of Eigen's erf for floats on
// [-4, 4], x P(x^2) / Q(x^2).
LONGEMBED_INLINE Floats Erf(Floats x) {
  x = Min(Max(x, Repeat(-4.0f)), Repeat(4.0f));
  const Floats square = x * x;
  Floats p = Repeat(-2.72614225801306e-10f);
  p = Fma(p, square, Repeat(2.77068142495902e-08f));
  p = Fma(p, square, Repeat(-2.10102402082508e-06f));
  p = Fma(p, square, Repeat(-5.69250639462346e-05f));
  p = Fma(p, square, Repeat(-7.34990630326855e-04f));
  p = Fma(p, square, Repeat(-2.95459980854025e-03f));
  p = Fma(p, square, Repeat(-1.60960333262415e-02f));
  Floats q = Repeat(-1.45660718464996e-05f);
  q = Fma(q, square, Repeat(-2.13374055278905e-04f));
  q = Fma(q, square, Repeat(-1.68282697438203e-03f));
  q = Fma(q, square, Repeat(-7.37332916720468e-03f));
  q = Fma(q, square, Repeat(-1.42647390514189e-02f));
  return x * p / q;
}

// Returns x Phi(x). On x86, minimum and maximum replace NaN by a number, so NaN is lost in Erf's clamp. The factor x/2
// restores it.
LONGEMBED_INLINE Floats Gelu(Floats x) {
  const Floats half = x * Repeat(0.5f);
  return Fma(half, Erf(x * Repeat(0.70710678118654752f)), half);
}

// Returns x / (1 + e^-z). To keep the argument of Exp2 at or below zero, it is computed as x e^z / (1 + e^z) for z < 0.
LONGEMBED_INLINE Floats TimesSigmoid(Floats x, Floats z) {
  constexpr float kMinusLog2E = -1.44269504088896f;
  const Floats power = Exp2(Abs(z) * Repeat(kMinusLog2E));
  const Floats numerator = Select(Less(z, Repeat(0)), x * power, x);
  return numerator / (power + Repeat(1.0f));
}

// Returns GELU approximated by tanh (Activation::kGeluTanh), with 1 + tanh(u) = 2 / (1 + e^-2u). Clamping x to [-16,
// 16] keeps the cube finite; beyond that range the sigmoid is 0 or 1.
LONGEMBED_INLINE Floats GeluTanh(Floats x) {
  const Floats c = Min(Max(x, Repeat(-16.0f)), Repeat(16.0f));
  const Floats square = c * c;
  const Floats slope = Fma(square, Repeat(0.0713548162726009f), Repeat(1.59576912160573f));
  return TimesSigmoid(x, c * slope);
}

// Returns tanh(x) with an absolute error below 2e-7.
LONGEMBED_INLINE Floats Tanh(Floats x) { return TimesSigmoid(Repeat(2.0f), x + x) - Repeat(1.0f); }

struct Float32Dot : StoredSteps<Words> {
  using Sum = Floats;
  static LONGEMBED_INLINE Sum Step(Sum sum, Words a, Words b) { return Fma(AsFloats(a), AsFloats(b), sum); }
};
// The product of float32 rows and weights that are stored in bfloat16.
struct WidenedDot : Float32Dot {
  static constexpr int kVectorBytes = sizeof(Words) / 2;
  static LONGEMBED_INLINE Words Load(const std::byte* from) { return LoadHalfWords(from); }
};

// Multiplies kRows rows by kVectors * kLanes outputs, with all sums in registers. A step of `b` has kStepVectors
// vectors. `start(r, v)` returns the initial sum; `finish(r, v, sum)` receives the result.
template <typename Dot, int kRows, int kVectors, int kStepVectors, typename Start, typename Finish>
LONGEMBED_INLINE void MultiplyTile(int steps, const std::byte* a, ptrdiff_t a_stride, const std::byte* b,
                                   const Start& start, const Finish& finish) {
  // Weights are streamed from memory or the last-level cache, and are prefetched this far ahead. Measured on one core,
  // 64 rows, float32: 231 -> 248 GFLOP/s; 16 rows: 174 -> 210.
  constexpr ptrdiff_t kPrefetchBytes = 8192;
  typename Dot::Sum sums[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sums[r][v] = start(r, v);
  }
  for (int step = 0; step < steps; ++step, a += kStepBytes, b += Dot::kVectorBytes * kStepVectors) {
    Words outputs[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      outputs[v] = Dot::Load(b + Dot::kVectorBytes * v);
      __builtin_prefetch(b + Dot::kVectorBytes * v + kPrefetchBytes, /*rw=*/0, /*locality=*/2);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      int32_t bytes;
      __builtin_memcpy(&bytes, a + r * a_stride, sizeof(bytes));
      const Words row = RepeatWord(bytes);
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

}  // namespace
}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_SIMD_MATH_H_
