// AMX tiles: Intel's matrix unit, from Sapphire Rapids on. To be included by kernels_avx512.cc after the set's vectors.
//
// Four bytes of each of 16 outputs are a row of the tile of weights that the instructions want, so panels are read as
// they are packed for vectors. A tile of sums is 16 rows by 16 outputs.
#ifndef LONGEMBED_MODEL_ENCODER_CPU_SIMD_AMX_H_
#define LONGEMBED_MODEL_ENCODER_CPU_SIMD_AMX_H_

#include "model/encoder/cpu/simd.h"

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

}  // namespace
}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_SIMD_AMX_H_
