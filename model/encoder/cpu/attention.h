// Attention of one sequence of a packed batch, similar to FlashAttention (arXiv 2205.14135): keys are processed in
// blocks with an online softmax, and no buffer grows with the sequence's length. Blocks, and parts of blocks, that no
// query of a tile sees are skipped. With `causal` and `reach`, the work is therefore proportional to the number of
// visible pairs.
#ifndef LONGEMBED_MODEL_ENCODER_CPU_ATTENTION_H_
#define LONGEMBED_MODEL_ENCODER_CPU_ATTENTION_H_

#include <cstddef>
#include <cstdint>

#include "model/encoder/cpu/rows.h"

namespace longembed::cpu {

// Rotations of a sequence's tokens, float32 [n, width] each. Components j and j + width of a head form a pair.
struct Rotation {
  const float* cos = nullptr;
  const float* sin = nullptr;
};

struct AttentionShape {
  int heads = 0;
  // A divisor of `heads`. Query head h uses key-value head h / (heads / key_value_heads).
  int key_value_heads = 0;
  int head_dim = 0;  // At most kMaxHeadDim.
  bool causal = false;
  int reach = kEverywhere;  // A query sees keys at most this many tokens away.
  // [heads, 2 max_distance + 1] Biases that are added to the scaled logits, indexed by the key's position minus the
  // query's. At larger distances than `max_distance`, the outermost bias applies. Null if there are none.
  const float* relative_bias = nullptr;
  int max_distance = 0;  // At most kMaxBiasDistance.

  static constexpr int kEverywhere = 1 << 30;
};
inline constexpr int kMaxHeadDim = 256;
inline constexpr int kMaxBiasDistance = 256;

// Baskets of keys for attention calibration against position bias (arXiv 2601.16934). Keys are divided into consecutive
// baskets of equal numbers of positions, the first from position 0. Each of the m baskets that a query sees gets an
// equal share of the attention, and weights within a basket keep their proportions. The result is mixed with the plain
// row, so that a_j becomes
//   (1 - strength) a_j + strength (1 - a_apart) / m a_j / (sum of a over j's basket).
// The token `apart` is in no basket and keeps its weight.
struct KeyBaskets {
  int size = 0;           // In positions; 0 means plain attention.
  float strength = 0.0f;  // 0 to 1.
  int apart = -1;         // The first or the last token, or -1 if none.
};

// The input of attention for one sequence. `qkv` begins at its first token and has (heads + 2 * key_value_heads) *
// head_dim columns: queries, keys and values side by side. The context overwrites the queries.
struct AttentionInput {
  Rows qkv;
  int tokens = 0;
  float scale = 1.0f;    // Scale of the logits, including 1 / sqrt(head_dim). Above 0.
  int rotary_width = 0;  // 0 means no rotation.
  // The plain rotations, and the grouped and shifted ones of SelfExtend (arXiv 2401.01325). If a key is fewer than
  // `window` tokens away from the query, both have plain rotations. For a key farther to the left, the query is shifted
  // and the key grouped. For a key farther to the right, the query is grouped and the key shifted.
  //
  // In dual chunk attention (arXiv 2402.17463), tokens of the same chunk have plain rotations. For a key in the
  // previous chunk, the query is shifted and the key plain. For a key in an earlier chunk, the query is grouped and the
  // key plain. For keys in chunks to the right, the versions of query and key are swapped.
  Rotation plain, grouped, shifted;
  int window = 0;      // 0 means no SelfExtend.
  int chunk = 0;       // Tokens per chunk; 0 means no dual chunk attention. Must be 0 if there is a window.
  KeyBaskets baskets;  // Must be unset unless AttentionShape::reach is kEverywhere.
};

// Maximum number of queries of one call of Kernels::attend.
inline constexpr int kMaxQueries = 256;

}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_ATTENTION_H_
