// Linear layers over rows, and the conversion of rows to their operands. For kernels_*.cc, which include it after the
// set's vectors.
#ifndef LONGEMBED_MODEL_ENCODER_CPU_MATMUL_BODY_H_
#define LONGEMBED_MODEL_ENCODER_CPU_MATMUL_BODY_H_

#include <type_traits>

#include "model/encoder/cpu/kernels.h"
#include "model/encoder/cpu/simd_math.h"

namespace longembed::cpu {
namespace {

constexpr int kPanelOutputs = kPanelVectors * kLanes;

// Rows of a tile. Their sums, three vectors of weights and one vector of a row fit into the registers.
constexpr int kTileRows = kRegisters / 4;

LONGEMBED_INLINE Floats Dequantize(Floats sum, const PackedWeights&, int, float) { return sum; }
LONGEMBED_INLINE Floats Dequantize(Words sum, const PackedWeights& weights, int output, float row_scale) {
  const Words exact = SubtractWords(sum, LoadWords(weights.offsets.data() + output));
  return ToFloats(exact) * (Load(weights.scales.data() + output) * Repeat(row_scale));
}

// Converts the sums of kLanes outputs of a row to results and stores them: adds the bias, applies the exact GELU if
// kGelu, and multiplies by `factors` [rows][kPanelOutputs] if kMultiplyByFactors. `out` is at the panel's first output.
template <typename T, bool kMultiplyByFactors, bool kGelu, typename Sum>
LONGEMBED_INLINE void FinishOutputs(const PackedWeights& weights, const Operand& in, int row, int panel, int vector,
                                    Sum sum, const float* factors, Rows out) {
  const int column = vector * kLanes, output = panel * kPanelOutputs + column;
  const float scale = in.scales == nullptr ? 1.0f : in.scales[row];
  Floats value = Dequantize(sum, weights, output, scale) + Load(weights.bias.data() + output);
  if constexpr (kGelu) value = Gelu(value);
  if constexpr (kMultiplyByFactors) value = value * Load(factors + row * kPanelOutputs + column);
  StoreFirst(RowOf<T>(out, row) + column, weights.outputs - output, value);
}

// Computes a panel's outputs for the kRows rows from `row` on.
template <typename Dot, typename T, bool kMultiplyByFactors, bool kGelu, int kRows, int kVectors>
void MultiplyPanelTile(const PackedWeights& weights, const Operand& in, int row, int panel, const float* factors,
                       Rows out) {
  MultiplyTile<Dot, kRows, kVectors, kVectors>(
      weights.steps, in.data + row * in.stride, in.stride, weights.panel(panel),
      [](int, int) { return typename Dot::Sum{}; },
      [&](int r, int v, typename Dot::Sum sum) {
        FinishOutputs<T, kMultiplyByFactors, kGelu>(weights, in, row + r, panel, v, sum, factors, out);
      });
}

// Computes a panel's outputs for all rows. matmul_amx.h specializes it for AMX.
template <typename Dot>
struct PanelProduct {
  static constexpr int kRows = kTileRows;  // Rows that are computed together.

  template <typename T, bool kMultiplyByFactors, bool kGelu>
  static void Multiply(const PackedWeights& weights, const Operand& in, int rows, int panel, const float* factors,
                       Rows out) {
    WithConstant<kPanelVectors>(weights.vectors_of(panel), [&](auto vectors) {
      for (int row = 0; row < rows;) {
        const int tile = NextTile(rows - row, kTileRows);
        WithConstant<kTileRows>(tile, [&](auto tile_rows) {
          MultiplyPanelTile<Dot, T, kMultiplyByFactors, kGelu, decltype(tile_rows)::value, decltype(vectors)::value>(
              weights, in, row, panel, factors, out);
        });
        row += tile;
      }
    });
  }
};

template <typename Dot, typename T, bool kMultiplyByFactors, bool kGelu = false>
LONGEMBED_INLINE void MultiplyPanel(const PackedWeights& weights, const Operand& in, int rows, int panel,
                                    const float* factors, Rows out) {
  PanelProduct<Dot>::template Multiply<T, kMultiplyByFactors, kGelu>(weights, in, rows, panel, factors, out);
}

LONGEMBED_INLINE Floats Activate(Activation activation, Floats x) {
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
      return Max(Repeat(0), x);  // NaN stays NaN.
  }
  return x;
}

// Applies the activation to `columns` outputs of each row of `sums` [rows, kPanelOutputs]. `out` may be the memory of
// `sums`.
template <typename T>
void ActivateRows(Activation activation, const float* sums, int rows, int columns, Rows out) {
  for (int r = 0; r < rows; ++r) {
    for (int j = 0; j < columns; j += kLanes) {
      StoreFirst(RowOf<T>(out, r) + j, columns - j, Activate(activation, Load(sums + r * kPanelOutputs + j)));
    }
  }
}

// Maximum rows of a Block, which holds intermediate sums in the first-level cache: the sums of one tile before an
// activation, or gate values for up to this many rows, which share one fetch of a panel of weights.
constexpr int kGateRows = 96;

struct alignas(64) Block {
  float values[kGateRows * kPanelOutputs];
  Rows rows() { return {reinterpret_cast<std::byte*>(values), kPanelOutputs * SizeOf(Element::kFloat32)}; }
};

template <typename Dot, typename T>
void MultiplyActivatedPanel(const PackedWeights& weights, const PackedWeights* gate, const Operand& in, int rows,
                            int panel, Activation activation, Rows out) {
  const int columns = Min(kPanelOutputs, weights.outputs - panel * kPanelOutputs);
  const int max_rows = gate == nullptr ? PanelProduct<Dot>::kRows : kGateRows;
  Block block;
  for (int row = 0, count; row < rows; row += count) {
    count = NextTile(rows - row, max_rows);
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

template <typename Dot, typename T>
void MultiplyInto(const PackedWeights& weights, const PackedWeights* gate, const Operand& in, int rows, int first,
                  int last, Activation activation, Rows out) {
  for (int panel = first; panel < last; ++panel) {
    const Rows to = out.from(0, panel * kPanelOutputs);
    if (gate == nullptr && activation == Activation::kNone) {
      MultiplyPanel<Dot, T, false>(weights, in, rows, panel, nullptr, to);
      // GELU has a kernel of its own, because most encoders use it.
    } else if (gate == nullptr && activation == Activation::kGelu) {
      MultiplyPanel<Dot, T, false, true>(weights, in, rows, panel, nullptr, to);
    } else {
      MultiplyActivatedPanel<Dot, T>(weights, gate, in, rows, panel, activation, to);
    }
  }
}

template <typename Dot>
void Multiply(const PackedWeights& weights, const PackedWeights* gate, const Operand& in, int rows, int first, int last,
              Activation activation, Rows out) {
  if constexpr (Dot::kBfloat16Results) {
    if (out.element == Element::kBfloat16) {
      return MultiplyInto<Dot, Bfloat16>(weights, gate, in, rows, first, last, activation, out);
    }
  }
  MultiplyInto<Dot, float>(weights, gate, in, rows, first, last, activation, out);
}

template <typename T>
void ToBfloat16Row(const T* in, int width, std::byte* out) {
  auto* const to = reinterpret_cast<Bfloat16*>(out);
  // With an odd width, the second half of the last step is zero.
  for (int j = 0; j < width; j += kLanes) StoreFirst(to + j, RoundUp(width, 2) - j, LoadFirst(in + j, width - j));
}

// Quantizes a row to int8. Magnitudes are compared as bits without the sign: NaN is then larger than all numbers and is
// not lost. For a row that is not finite, the scale is not finite either, so all its products are NaN.
template <typename T>
void ToInt8Row(const T* in, int width, std::byte* out, float* scale) {
  Words largest = RepeatWord(0);
  ForVectors(width, [&](int j, auto lanes) { largest = MaxUnsigned(largest, AsWords(Abs(LoadFirst(in + j, lanes)))); });
  const uint32_t bits = LargestUnsigned(largest);
  float magnitude;
  __builtin_memcpy(&magnitude, &bits, sizeof(magnitude));
  *scale = magnitude / 127.0f;
  const Floats inverse = Repeat(magnitude > 0 ? 127.0f / magnitude : 0.0f);
  const Words middle = RepeatWord(kInt8Middle);
  const int padded = RoundUp(width, kStepBytes);
  ForVectors(width, [&](int j, auto lanes) {
    const Words byte = AddWords(RoundToWords(LoadFirst(in + j, lanes) * inverse), middle);
    StoreFirstBytes(out + j, padded - j, byte);
  });
}

template <typename T>
void ToFloat32Row(const T* in, int width, std::byte* out) {
  ForVectors(width, [&](int j, auto lanes) {
    StoreFirst(reinterpret_cast<float*>(out) + j, lanes, LoadFirst(in + j, lanes));
  });
}

void ToOperand(Rows in, int rows, int width, Precision precision, std::byte* data, ptrdiff_t stride, float* scales) {
  WithElement(in.element, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    for (int r = 0; r < rows; ++r) {
      const T* const row = RowOf<const T>(in, r);
      std::byte* const to = data + r * stride;
      if (precision == Precision::kFloat32) ToFloat32Row(row, width, to);
      if constexpr (kBfloat16Rows) {
        if (precision == Precision::kBfloat16) ToBfloat16Row(row, width, to);
      }
      if (precision == Precision::kInt8) ToInt8Row(row, width, to, scales + r);
    }
  });
}

}  // namespace
}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_MATMUL_BODY_H_
