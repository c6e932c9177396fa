// Products of bfloat16 and int8 by AMX tiles (Intel's matrix unit, from Sapphire Rapids on). Four bytes of each of 16
// outputs are a row of the tile that the instructions want, so panels are read as they are packed. To be included by
// kernels_avx512.cc after matmul_body.h.
//
// A tile of sums is 16 rows by 16 outputs; up to two by three of them are added up in registers. They go through memory
// once, in the first-level cache, to bias, activation and conversion. Rows are added up in one order wherever they are.
#ifndef LONGEMBED_MODEL_ENCODER_CPU_MATMUL_AMX_H_
#define LONGEMBED_MODEL_ENCODER_CPU_MATMUL_AMX_H_

#include <type_traits>

#include "model/encoder/cpu/matmul_body.h"

namespace longembed::cpu {
namespace {

constexpr int kAmxRows = 16;   // Of a tile of sums.
constexpr int kAmxSteps = 16;  // Of a tile of rows: 64 bytes each; and of a tile of weights.
constexpr int kAmxBytes = kAmxSteps * kStepBytes;

// GCC 12's intrinsics do not tell the compiler what memory they read and write; these do.
template <int kTile>
LONGEMBED_INLINE void ZeroTile() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
}
template <int kTile>
LONGEMBED_INLINE void LoadTile(const void* from, ptrdiff_t stride) {
  asm volatile("tileloadd (%1,%2,1), %%tmm%c0" : : "i"(kTile), "r"(from), "r"(stride) : "memory");
}
template <int kTile>
LONGEMBED_INLINE void StoreTile(void* to, ptrdiff_t stride) {
  asm volatile("tilestored %%tmm%c0, (%1,%2,1)" : : "i"(kTile), "r"(to), "r"(stride) : "memory");
}
struct AmxBfloat16 {
  static constexpr bool kBfloat16Results = true;
  using Sum = Floats;
  template <int kSums, int kRows, int kWeights>
  static LONGEMBED_INLINE void Multiply() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kRows), "i"(kWeights));
  }
};
// Unsigned rows, signed weights.
struct AmxInt8 {
  static constexpr bool kBfloat16Results = true;
  using Sum = Words;
  template <int kSums, int kRows, int kWeights>
  static LONGEMBED_INLINE void Multiply() {
    asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kRows), "i"(kWeights));
  }
};

// Tiles: of sums 0 to 5, of rows 6, of weights 7.
constexpr int kRowsTile = 6, kWeightsTile = 7;

// The layout that LDTILECFG reads.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

// Of sums and rows, `rows` high. Configured tiles cost the system a larger context, until they are released.
LONGEMBED_INLINE void ConfigureTiles(int rows) {
  TileConfig config;
  for (int tile = 0; tile <= kWeightsTile; ++tile) {
    config.row_bytes[tile] = kAmxBytes;
    config.rows[tile] = static_cast<uint8_t>(tile == kWeightsTile ? kAmxSteps : rows);
  }
  asm volatile("ldtilecfg %0" : : "m"(config));
}
LONGEMBED_INLINE void ReleaseTiles() { asm volatile("tilerelease"); }

// Calls body(Constant<0>()) to body(Constant<kCount - 1>()).
template <int kCount, typename Body>
LONGEMBED_INLINE void ForConstants(const Body& body) {
  if constexpr (kCount > 0) {
    ForConstants<kCount - 1>(body);
    body(Constant<kCount - 1>());
  }
}

// The last steps of a row, and of a panel, when they do not fill a tile: with zeros after them.
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

  template <typename T, bool kTimes, bool kGelu>
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
            FinishOutputs<T, kTimes, kGelu>(weights, in, row + r, panel, v, sums.values[r][v], factors, out);
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
