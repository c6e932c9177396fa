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

// A tile of a panel's outputs, from `row` on: sums and bias, through the exact GELU where kGelu, times `factors`
// [rows][kPanelOutputs] where kTimes. `out` is at the panel's first output.
template <typename Dot, typename T, bool kTimes, bool kGelu, int kRows, int kVectors>
void MultiplyPanelTile(const PackedWeights& weights, const Operand& in, int row, int panel, const float* factors,
                       Rows out) {
  const int output = panel * kPanelOutputs;
  const auto finish = [&](int r, int v, typename Dot::Sum sum) {
    const int first = output + v * kLanes;
    const float scale = in.scales == nullptr ? 1.0f : in.scales[row + r];
    __m512 value = _mm512_add_ps(Dequantize(sum, weights, first, scale), _mm512_loadu_ps(weights.bias.data() + first));
    if constexpr (kGelu) value = Gelu(value);
    if constexpr (kTimes)
      value = _mm512_mul_ps(value, _mm512_load_ps(factors + (row + r) * kPanelOutputs + v * kLanes));
    Store(RowOf<T>(out, row + r) + v * kLanes, FirstLanes(weights.outputs - first), value);
  };
  MultiplyTile<Dot, kRows, kVectors, kVectors>(
      weights.steps, in.data + row * in.stride, in.stride, weights.panel(panel), [](int, int) { return Dot::Zero(); },
      finish);
}

// All rows of a panel.
template <typename Dot, typename T, bool kTimes, bool kGelu = false>
void MultiplyPanel(const PackedWeights& weights, const Operand& in, int rows, int panel, const float* factors,
                   Rows out) {
  WithConstant<kPanelVectors>(weights.vectors_of(panel), [&](auto vectors) {
    for (int row = 0; row < rows;) {
      const int tile = NextTile(rows - row, kTileRows);
      WithConstant<kTileRows>(tile, [&](auto tile_rows) {
        MultiplyPanelTile<Dot, T, kTimes, kGelu, decltype(tile_rows)::value, decltype(vectors)::value>(
            weights, in, row, panel, factors, out);
      });
      row += tile;
    }
  });
}

LONGEMBED_INLINE __m512 Activate(Activation activation, __m512 x) {
  switch (activation) {
    case Activation::kNone:
      return x;
    case Activation::kGelu:
      return Gelu(x);
    case Activation::kGeluTanh:
      return GeluTanh(x);
    case Activation::kSilu:
      return TimesSigmoid(x, x);
    case Activation::kTanh:
      return Tanh(x);
    case Activation::kRelu:
      return _mm512_max_ps(x, _mm512_setzero_ps());
  }
  return x;
}

// `columns` outputs of rows [kPanelOutputs]. `out` may be where `sums` are.
template <typename T>
void ActivateRows(Activation activation, const float* sums, int rows, int columns, Rows out) {
  for (int r = 0; r < rows; ++r) {
    for (int j = 0; j < columns; j += kLanes) {
      const __m512 activated = Activate(activation, _mm512_load_ps(sums + r * kPanelOutputs + j));
      Store(RowOf<T>(out, r) + j, FirstLanes(columns - j), activated);
    }
  }
}

// Sums that are not results yet wait in a block's worth of memory, in the first-level cache: for an activation a
// tile's, for a gate those of as many rows as a panel of weights is fetched for.
constexpr int kGateRows = 96;

struct alignas(64) Block {
  float values[kGateRows * kPanelOutputs];
  Rows rows() { return {reinterpret_cast<std::byte*>(values), kPanelOutputs * SizeOf(Element::kFloat32)}; }
};

template <typename Dot, typename T>
void MultiplyActivatedPanel(const PackedWeights& weights, const PackedWeights* gate, const Operand& in, int rows,
                            int panel, Activation activation, Rows out) {
  const int columns = Min(kPanelOutputs, weights.outputs - panel * kPanelOutputs);
  const int most = gate == nullptr ? kTileRows : kGateRows;
  Block block;
  for (int row = 0, count; row < rows; row += count) {
    count = NextTile(rows - row, most);
    if (gate == nullptr) {
      MultiplyPanel<Dot, float, false>(weights, in.from(row), count, panel, nullptr, block.rows());
      ActivateRows<T>(activation, block.values, count, columns, out.from(row));
    } else {
      MultiplyPanel<Dot, float, false>(*gate, in.from(row), count, panel, nullptr, block.rows());
      ActivateRows<float>(activation, block.values, count, columns, block.rows());
      MultiplyPanel<Dot, T, true>(weights, in.from(row), count, panel, block.values, out.from(row));
    }
  }
}

template <typename Dot>
void Multiply(const PackedWeights& weights, const PackedWeights* gate, const Operand& in, int rows, int first, int last,
              Activation activation, Rows out) {
  WithElement(out.element, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    for (int panel = first; panel < last; ++panel) {
      const Rows to = out.from(0, panel * kPanelOutputs);
      if (gate == nullptr && activation == Activation::kNone) {
        MultiplyPanel<Dot, T, false>(weights, in, rows, panel, nullptr, to);
      } else if (gate == nullptr && activation == Activation::kGelu) {  // Most encoders': worth a kernel of its own.
        MultiplyPanel<Dot, T, false, true>(weights, in, rows, panel, nullptr, to);
      } else {
        MultiplyActivatedPanel<Dot, T>(weights, gate, in, rows, panel, activation, to);
      }
    }
  });
}

void MultiplyAny(const PackedWeights& weights, const PackedWeights* gate, const Operand& in, int rows, int first,
                 int last, Activation activation, Rows out) {
  switch (weights.precision) {
    case Precision::kFloat32:
      return Multiply<Float32Dot>(weights, gate, in, rows, first, last, activation, out);
    case Precision::kBfloat16:
      if (weights.operand == Precision::kFloat32) {
        return Multiply<WidenedDot>(weights, gate, in, rows, first, last, activation, out);
      }
      return Multiply<Bfloat16Dot>(weights, gate, in, rows, first, last, activation, out);
    case Precision::kInt8:
      return Multiply<Int8Dot>(weights, gate, in, rows, first, last, activation, out);
    case Precision::kFloat16:
      return;  // Never packed: CUDA only.
  }
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
  MultiplyAny(weights, nullptr, in, rows, first_panel, last_panel, activation, out);
}

void MultiplyGatedRows(const PackedWeights& weights, const PackedWeights& gate, const Operand& in, int rows,
                       int first_panel, int last_panel, Activation activation, Rows out) {
  MultiplyAny(weights, &gate, in, rows, first_panel, last_panel, activation, out);
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
