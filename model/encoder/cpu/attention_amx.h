// The products of attention with AMX tiles (simd_amx.h), in bfloat16. For kernels_avx512.cc, which includes it after
// attention_body.h.
#ifndef LONGEMBED_MODEL_ENCODER_CPU_ATTENTION_AMX_H_
#define LONGEMBED_MODEL_ENCODER_CPU_ATTENTION_AMX_H_

#include "model/encoder/cpu/attention_body.h"
#include "model/encoder/cpu/simd_amx.h"

namespace longembed::cpu {
namespace {

// The parameter `Tiles` of HeadAttention. Strides are in bytes.
struct AmxAttention {
  static constexpr int kSteps = kAmxSteps;

  static LONGEMBED_INLINE void Configure(int queries) { ConfigureTiles(queries); }
  static LONGEMBED_INLINE void Release() { ReleaseTiles(); }

  // Computes the scores of the configured queries for the first vector of keys of a panel, or for `both`. `steps` is a
  // multiple of the steps of a tile.
  static LONGEMBED_INLINE void Score(int steps, const std::byte* queries, ptrdiff_t query_stride,
                                     const std::byte* panel, bool both, float* scores, ptrdiff_t score_stride) {
    ZeroTile<0>();
    ZeroTile<1>();
    for (int step = 0; step < steps; step += kSteps, queries += kAmxBytes, panel += kSteps * kPanelStep) {
      AddSteps(queries, query_stride, panel, both);
    }
    StoreTile<0>(scores, score_stride);
    if (both) StoreTile<1>(scores + kLanes, score_stride);
  }

  // Multiplies weights [queries, keys] by a panel of values, and adds the product to those components of the queries'
  // contexts that the panel holds. `blocks` is the number of tiles of keys.
  static LONGEMBED_INLINE void Accumulate(int blocks, const std::byte* weights, ptrdiff_t weight_stride,
                                          const std::byte* panel, bool first, float* context,
                                          ptrdiff_t context_stride) {
    if (first) {
      ZeroTile<0>();
      ZeroTile<1>();
    } else {
      LoadTile<0>(context, context_stride);
      LoadTile<1>(context + kLanes, context_stride);
    }
    for (int block = 0; block < blocks; ++block, weights += kAmxBytes, panel += kSteps * kPanelStep) {
      AddSteps(weights, weight_stride, panel, /*both=*/true);
    }
    StoreTile<0>(context, context_stride);
    StoreTile<1>(context + kLanes, context_stride);
  }

 private:
  static LONGEMBED_INLINE void AddSteps(const std::byte* rows, ptrdiff_t stride, const std::byte* panel, bool both) {
    LoadTile<kRowsTile>(rows, stride);
    LoadTile<kWeightsTile>(panel, kPanelStep);
    AmxBfloat16::Multiply<0, kRowsTile, kWeightsTile>();
    if (!both) return;
    LoadTile<kWeightsTile>(panel + sizeof(Words), kPanelStep);
    AmxBfloat16::Multiply<1, kRowsTile, kWeightsTile>();
  }
};

}  // namespace
}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_ATTENTION_AMX_H_
