#include <type_traits>

#include "model/encoder/cpu/matmul.h"
#include "model/encoder/cpu/simd_avx512.h"

namespace longembed::cpu {
namespace {

constexpr int kTileRows = 8;

LONGEMBED_INLINE __m512 Dequantize(__m512 sum, const PackedWeights&, int, float) { return sum; }
LONGEMBED_INLINE __m512 Dequantize(__m512i sum, const PackedWeights& weights, int output, float row_scale) {
  const __m512i exact = _mm512_sub_epi32(sum, _mm512_loadu_si512(weights.offsets.data() + output));
  const __m512 scale = _mm512_mul_ps(_mm512_loadu_ps(weights.scales.data() + output), _mm512_set1_ps(row_scale));
  return _mm512_mul_ps(_mm512_cvtepi32_ps(exact), scale);
}

template <typename Dot, typename T, Activation kActivation, int kRows, int kVectors>
void MultiplyPanelTile(const PackedWeights& weights, const Operand& in, int row, int panel, Rows out) {
  const int output = panel * kPanelOutputs;
  const auto finish = [&](int r, int v, typename Dot::Sum sum) {
    const int first = output + v * kLanes;
    const float scale = in.scales == nullptr ? 1.0f : in.scales[row + r];
    __m512 value = _mm512_add_ps(Dequantize(sum, weights, first, scale), _mm512_loadu_ps(weights.bias.data() + first));
    if constexpr (kActivation == Activation::kGelu) value = Gelu(value);
    Store(RowOf<T>(out, row + r) + first, FirstLanes(weights.outputs - first), value);
  };
  MultiplyTile<Dot, kRows, kVectors, kVectors>(
      weights.steps, in.data + row * in.stride, in.stride, weights.panel(panel), [](int, int) { return Dot::Zero(); },
      finish);
}

template <typename Dot, typename T, Activation kActivation>
void MultiplyPanels(const PackedWeights& weights, const Operand& in, int rows, int first, int last, Rows out) {
  for (int panel = first; panel < last; ++panel) {
    WithConstant<kPanelVectors>(weights.vectors_of(panel), [&](auto vectors) {
      for (int row = 0; row < rows;) {
        const int tile = NextTile(rows - row, kTileRows);
        WithConstant<kTileRows>(tile, [&](auto tile_rows) {
          MultiplyPanelTile<Dot, T, kActivation, decltype(tile_rows)::value, decltype(vectors)::value>(weights, in, row,
                                                                                                       panel, out);
        });
        row += tile;
      }
    });
  }
}

template <typename Dot>
void Multiply(const PackedWeights& weights, const Operand& in, int rows, int first, int last, Activation activation,
              Rows out) {
  WithElement(out.element, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    if (activation == Activation::kGelu) {
      MultiplyPanels<Dot, T, Activation::kGelu>(weights, in, rows, first, last, out);
    } else {
      MultiplyPanels<Dot, T, Activation::kNone>(weights, in, rows, first, last, out);
    }
  });
}

template <typename T>
void ToBfloat16Row(const T* in, int width, std::byte* out) {
  auto* const to = reinterpret_cast<Bfloat16*>(out);
  for (int j = 0; j < width; j += kLanes) {
    const __mmask16 lanes = FirstLanes(width - j);
    // A column beyond an odd width is zero, the other half of its step.
    Store(to + j, FirstLanes(RoundUp(width, 2) - j), Load(in + j, lanes));
  }
}

template <typename T>
void ToInt8Row(const T* in, int width, std::byte* out, float* scale) {
  __m512 largest = _mm512_setzero_ps();
  for (int j = 0; j < width; j += kLanes) {
    largest = _mm512_max_ps(largest, _mm512_abs_ps(Load(in + j, FirstLanes(width - j))));
  }
  const float magnitude = _mm512_reduce_max_ps(largest);
  *scale = magnitude / 127.0f;
  const __m512 inverse = _mm512_set1_ps(magnitude > 0 ? 127.0f / magnitude : 0.0f);
  const __m512i middle = _mm512_set1_epi32(128);
  const int padded = RoundUp(width, 4);
  for (int j = 0; j < width; j += kLanes) {
    const __m512 scaled = _mm512_mul_ps(Load(in + j, FirstLanes(width - j)), inverse);
    const __m512i byte = _mm512_add_epi32(_mm512_cvtps_epi32(scaled), middle);
    _mm_mask_storeu_epi8(out + j, FirstLanes(padded - j), _mm512_cvtepi32_epi8(byte));
  }
}

template <typename T>
void ToFloat32Row(const T* in, int width, std::byte* out) {
  for (int j = 0; j < width; j += kLanes) {
    const __mmask16 lanes = FirstLanes(width - j);
    Store(reinterpret_cast<float*>(out) + j, lanes, Load(in + j, lanes));
  }
}

}  // namespace

void MultiplyRows(const PackedWeights& weights, const Operand& in, int rows, int first_panel, int last_panel,
                  Activation activation, Rows out) {
  switch (weights.precision) {
    case Precision::kFloat32:
      return Multiply<Float32Dot>(weights, in, rows, first_panel, last_panel, activation, out);
    case Precision::kBfloat16:
      if (weights.operand == Precision::kFloat32) {
        return Multiply<WidenedDot>(weights, in, rows, first_panel, last_panel, activation, out);
      }
      return Multiply<Bfloat16Dot>(weights, in, rows, first_panel, last_panel, activation, out);
    case Precision::kInt8:
      return Multiply<Int8Dot>(weights, in, rows, first_panel, last_panel, activation, out);
    case Precision::kFloat16:
      return;  // Never packed: CUDA only.
  }
}

void ToOperand(Rows in, int rows, int width, Precision precision, std::byte* data, ptrdiff_t stride, float* scales) {
  WithElement(in.element, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    for (int r = 0; r < rows; ++r) {
      const T* const row = RowOf<const T>(in, r);
      std::byte* const to = data + r * stride;
      if (precision == Precision::kFloat32) ToFloat32Row(row, width, to);
      if (precision == Precision::kBfloat16) ToBfloat16Row(row, width, to);
      if (precision == Precision::kInt8) ToInt8Row(row, width, to, scales + r);
    }
  });
}

}  // namespace longembed::cpu
