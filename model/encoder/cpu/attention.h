// Attention of one sequence of a packed batch, in the manner of FlashAttention (arXiv 2205.14135): keys by blocks, an
// online softmax, no buffer that grows with the length. Blocks and parts of blocks that no query of a tile sees are
// skipped: with `causal` and with `reach` the work is that of the pairs that are seen.
#ifndef LONGEMBED_MODEL_ENCODER_CPU_ATTENTION_H_
#define LONGEMBED_MODEL_ENCODER_CPU_ATTENTION_H_

#include <cstddef>
#include <cstdint>

#include "model/encoder/cpu/rows.h"

namespace longembed::cpu {

// Rotations of a sequence's tokens: component j of a head with component j + width, float32 [n, width] each.
struct Rotation {
  const float* cos = nullptr;
  const float* sin = nullptr;
};

struct AttentionShape {
  int heads = 0;
  int key_value_heads = 0;  // Divides heads; query head h reads key-value head h / (heads / key_value_heads).
  int head_dim = 0;         // At most kMaxHeadDim.
  bool causal = false;
  int reach = kEverywhere;  // A query sees keys at most so many tokens away.
  // [heads, 2 farthest + 1], added to scaled logits by how far the key is to the right of the query; the outermost
  // beyond. Null: none.
  const float* relative_bias = nullptr;
  int farthest = 0;  // At most kMaxFarthest.

  static constexpr int kEverywhere = 1 << 30;
};
inline constexpr int kMaxHeadDim = 256;
inline constexpr int kMaxFarthest = 256;

// Baskets of keys for attention calibrated against position bias (arXiv 2601.16934): equal numbers of positions each,
// the first from position 0 on. Each of the m baskets that a query sees gets an equal part of the attention, and
// weights within a basket keep their proportions; the result is mixed with the plain row: a_j becomes
//   (1 - strength) a_j + strength (1 - a_apart) / m a_j / (sum of a over j's basket).
// Token `apart` is in no basket, and keeps its weight.
struct KeyBaskets {
  int size = 0;           // Positions; 0: plain attention.
  float strength = 0.0f;  // 0 to 1.
  int apart = -1;         // The first or the last token; -1: none.
};

// One sequence. `qkv` is at its first token: (heads + 2 * key_value_heads) * head_dim columns, queries, keys and values
// side by side. The context takes the place of the queries.
struct AttentionInput {
  Rows qkv;
  int tokens = 0;
  float scale = 1.0f;    // Of logits, 1 / sqrt(head_dim) included. Above zero.
  int rotary_width = 0;  // 0: no rotation.
  // Plain, and for SelfExtend (arXiv 2401.01325) grouped and shifted: a key fewer than `window` tokens away takes plain
  // rotations; of one further to the left the query is shifted and the key grouped; of one further to the right, the
  // other way round.
  //
  // For dual chunk attention (arXiv 2402.17463) tokens of one chunk take plain rotations. Of a key in the chunk before,
  // the query is shifted and the key plain; of one in an earlier chunk, the query grouped and the key plain; of keys to
  // the right, query and key the other way round.
  Rotation plain, grouped, shifted;
  int window = 0;      // 0: no SelfExtend.
  int chunk = 0;       // Tokens of a chunk; 0: no dual chunk attention. Not with a window.
  KeyBaskets baskets;  // Not with a reach.
};

// Queries of one call of Kernels::attend, at most.
inline constexpr int kMaxQueries = 256;

}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_ATTENTION_H_
