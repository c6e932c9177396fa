// AMX tiles, which Intel processors have from Sapphire Rapids on. For kernels_avx512.cc, which includes it after the
// set's vectors.
//
// The instructions expect weights in tiles whose rows hold four bytes of each of 16 outputs. This is the layout of
// packed panels, so panels are loaded without conversion. A tile of sums is 16 rows by 16 outputs.
#ifndef LONGEMBED_MODEL_ENCODER_CPU_SIMD_AMX_H_
#define LONGEMBED_MODEL_ENCODER_CPU_SIMD_AMX_H_

#include "model/encoder/cpu/simd.h"

namespace longembed::cpu {
namespace {

constexpr int kAmxRows = 16;   // Rows of a tile of sums.
constexpr int kAmxSteps = 16;  // Steps of a tile of rows, whose rows have 64 bytes, and of a tile of weights.
constexpr int kAmxBytes = kAmxSteps * kStepBytes;

// Inline assembly, because GCC 12's intrinsics do not tell the compiler which memory they read and write.
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
// Multiplies unsigned rows by signed weights.
struct AmxInt8 {
  static constexpr bool kBfloat16Results = true;
  using Sum = Words;
  template <int kSums, int kRows, int kWeights>
  static LONGEMBED_INLINE void Multiply() {
    asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSums), "i"(kRows), "i"(kWeights));
  }
};

// Tile numbers: 0 to 5 for sums, 6 for rows, 7 for weights.
constexpr int kRowsTile = 6, kWeightsTile = 7;

// The layout that LDTILECFG reads.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

// Configures tiles of sums and rows with `rows` rows. Until ReleaseTiles, context switches of this thread also save the
// tiles.
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
