// Linear layers with AMX tiles (simd_amx.h), in bfloat16 and int8. For kernels_avx512.cc, which includes it after
// matmul_body.h.
//
// Up to two by three tiles of sums are accumulated in tile registers. They are then stored to the first-level cache
// once, where bias, activation and conversion are applied. The order of additions does not depend on a row's place in
// the batch.
#ifndef LONGEMBED_MODEL_ENCODER_CPU_MATMUL_AMX_H_
#define LONGEMBED_MODEL_ENCODER_CPU_MATMUL_AMX_H_

#include <type_traits>

#include "model/encoder/cpu/matmul_body.h"
#include "model/encoder/cpu/simd_amx.h"

namespace longembed::cpu {
namespace {

// Calls body(Constant<0>()) to body(Constant<kCount - 1>()).
template <int kCount, typename Body>
LONGEMBED_INLINE void ForConstants(const Body& body) {
  if constexpr (kCount > 0) {
    ForConstants<kCount - 1>(body);
    body(Constant<kCount - 1>());
  }
}

// The last steps of rows and of a panel, padded with zeros, if they do not fill a tile.
struct alignas(64) LastSteps {
  std::byte rows[2 * kAmxRows][kAmxBytes];
  std::byte weights[kAmxSteps][kPanelVectors * sizeof(Words)];
};

template <typename Tiles>
struct AmxProduct {
  static constexpr int kRows = 2 * kAmxRows;

  struct alignas(64) Sums {
    typename Tiles::Sum values[kRows][kPanelVectors];
  };

  template <typename T, bool kMultiplyByFactors, bool kGelu>
  static void Multiply(const PackedWeights& weights, const Operand& in, int rows, int panel, const float* factors,
                       Rows out) {
    WithConstant<kPanelVectors>(weights.vectors_of(panel), [&](auto vectors) {
      constexpr int kVectors = decltype(vectors)::value;
      LastSteps last;
      const int rest = weights.steps % kAmxSteps;
      if (rest > 0) CopyLastWeights<kVectors>(weights, panel, rest, last);
      Sums sums;
      int configured = 0;
      for (int row = 0, count; row < rows; row += count) {
        const int tile = Min(rows - row, kAmxRows);
        const bool two = rows - row >= kRows;
        count = two ? kRows : tile;
        if (tile != configured) ConfigureTiles(configured = tile);
        if (rest > 0) CopyLastRows(in, row, count, weights.steps, rest, last);
        if (two) {
          AddUp<2, kVectors>(weights, in, row, panel, last, sums);
        } else {
          AddUp<1, kVectors>(weights, in, row, panel, last, sums);
        }
        for (int r = 0; r < count; ++r) {
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; ++v) {
            FinishOutputs<T, kMultiplyByFactors, kGelu>(weights, in, row + r, panel, v, sums.values[r][v], factors,
                                                        out);
          }
        }
      }
    });
    ReleaseTiles();
  }

 private:
  template <int kVectors>
  static void CopyLastWeights(const PackedWeights& weights, int panel, int rest, LastSteps& last) {
    constexpr int kBytes = kVectors * static_cast<int>(sizeof(Words));
    const std::byte* const from = weights.panel(panel) + static_cast<ptrdiff_t>(weights.steps - rest) * kBytes;
    __builtin_memset(last.weights, 0, sizeof(last.weights));
    for (int step = 0; step < rest; ++step) __builtin_memcpy(last.weights[step], from + step * kBytes, kBytes);
  }

  static void CopyLastRows(const Operand& in, int row, int count, int steps, int rest, LastSteps& last) {
    __builtin_memset(last.rows, 0, sizeof(last.rows));
    for (int r = 0; r < count; ++r) {
      __builtin_memcpy(last.rows[r],
                       in.data + (row + r) * in.stride + static_cast<ptrdiff_t>(steps - rest) * kStepBytes,
                       static_cast<size_t>(rest) * kStepBytes);
    }
  }

  template <int kRowTiles, int kVectors>
  static LONGEMBED_INLINE void AddUp(const PackedWeights& weights, const Operand& in, int row, int panel,
                                     const LastSteps& last, Sums& sums) {
    constexpr ptrdiff_t kStride = kVectors * sizeof(Words);
    ForConstants<kRowTiles * kVectors>([](auto tile) { ZeroTile<decltype(tile)::value>(); });
    const std::byte* a = in.data + row * in.stride;
    const std::byte* b = weights.panel(panel);
    int step = 0;
    for (; step + kAmxSteps <= weights.steps; step += kAmxSteps, a += kAmxBytes, b += kAmxSteps * kStride) {
      AddSteps<kRowTiles, kVectors>(a, in.stride, b, kStride);
    }
    if (step < weights.steps) {
      AddSteps<kRowTiles, kVectors>(&last.rows[0][0], kAmxBytes, &last.weights[0][0], sizeof(last.weights[0]));
    }
    ForConstants<kRowTiles * kVectors>([&](auto tile) {
      constexpr int kTile = decltype(tile)::value;
      StoreTile<kTile>(&sums.values[kTile / kVectors * kAmxRows][kTile % kVectors], sizeof(sums.values[0]));
    });
  }

  template <int kRowTiles, int kVectors>
  static LONGEMBED_INLINE void AddSteps(const std::byte* a, ptrdiff_t a_stride, const std::byte* b,
                                        ptrdiff_t b_stride) {
    ForConstants<kVectors>([&](auto vector) {
      constexpr int kVector = decltype(vector)::value;
      LoadTile<kWeightsTile>(b + kVector * sizeof(Words), b_stride);
      ForConstants<kRowTiles>([&](auto rows) {
        constexpr int kRows = decltype(rows)::value;
        LoadTile<kRowsTile>(a + kRows * kAmxRows * a_stride, a_stride);
        Tiles::template Multiply<kRows * kVectors + kVector, kRowsTile, kWeightsTile>();
      });
    });
  }
};

template <>
struct PanelProduct<AmxBfloat16> : AmxProduct<AmxBfloat16> {};
template <>
struct PanelProduct<AmxInt8> : AmxProduct<AmxInt8> {};

}  // namespace
}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_MATMUL_AMX_H_
