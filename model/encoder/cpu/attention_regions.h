// Which keys a query sees, and which rotated versions of both their product takes: plain and local attention,
// SelfExtend, STRING and dual chunk attention. For attention_body.h.
#ifndef LONGEMBED_MODEL_ENCODER_CPU_ATTENTION_REGIONS_H_
#define LONGEMBED_MODEL_ENCODER_CPU_ATTENTION_REGIONS_H_

#include "model/encoder/cpu/attention.h"
#include "model/encoder/cpu/simd_math.h"

namespace longembed::cpu {
namespace {

constexpr int kVersions = 3;  // Rotated versions of queries and keys: plain, grouped, shifted.
enum Version { kPlain, kGrouped, kShifted };

// Regions of a block's keys relative to a query. SelfExtend: fewer than a window away, or farther on one side. Dual
// chunk attention: in the query's chunk, in the adjacent chunk on one side, or farther.
enum Region { kNear, kLeft, kRight, kFarLeft, kFarRight };
constexpr Region kRegions[] = {kNear, kLeft, kRight, kFarLeft, kFarRight};
struct PairVersions {
  Version query, key;
};
// Indexed by region.
constexpr PairVersions kWindowVersions[] = {{kPlain, kPlain}, {kShifted, kGrouped}, {kGrouped, kShifted}, {}, {}};
constexpr PairVersions kChunkVersions[] = {
    {kPlain, kPlain}, {kShifted, kPlain}, {kPlain, kShifted}, {kGrouped, kPlain}, {kPlain, kGrouped}};

struct Span {
  int start = 0;
  int end = 0;
  LONGEMBED_INLINE bool empty() const { return start >= end; }
};

// The regions of one sequence. Rows and keys are ranges of its tokens.
struct Regions {
  int tokens;
  int reach;
  int window;  // SelfExtend's and STRING's neighbor window; 0: none.
  int chunk;   // Dual chunk attention's chunk; 0: none.
  bool causal;

  LONGEMBED_INLINE int versions() const { return window > 0 || chunk > 0 ? kVersions : 1; }
  LONGEMBED_INLINE PairVersions VersionsOf(Region region) const {
    return chunk > 0 ? kChunkVersions[region] : kWindowVersions[region];
  }

  // Returns the keys that at least one of the rows sees.
  LONGEMBED_INLINE Span Visible(Span rows) const {
    return {Max(0, rows.start - reach), Min(tokens, causal ? rows.end : rows.end + reach)};
  }

  // Returns the keys that are in a region of at least one of the rows, visible or not. For each row these keys are
  // contiguous, and both bounds grow from row to row.
  LONGEMBED_INLINE Span KeysOf(Region region, Span rows) const {
    const int w = window, s = chunk, last = rows.end - 1;
    if (s > 0) {
      const int first_chunk = rows.start / s * s, last_chunk = last / s * s;
      switch (region) {
        case kNear:
          return {first_chunk, last_chunk + s};
        case kLeft:
          return {first_chunk - s, last_chunk};
        case kRight:
          return {first_chunk + s, last_chunk + 2 * s};
        case kFarLeft:
          return {0, last_chunk - s};
        case kFarRight:
          return {first_chunk + 2 * s, tokens};
      }
    }
    if (w <= 0) return region == kNear ? Span{0, tokens} : Span{};
    switch (region) {
      case kNear:
        return {rows.start - w + 1, last + w};
      case kLeft:
        return {0, last - w + 1};
      case kRight:
        return {rows.start + w, tokens};
      default:
        return {};
    }
  }

  // Returns the keys of the block that at least one of the rows sees in a region, as indexes from the block's first
  // key.
  LONGEMBED_INLINE Span Seen(Region region, Span rows, Span keys) const {
    if (causal && (region == kRight || region == kFarRight)) return {};
    const Span visible = Visible(rows), own = KeysOf(region, rows);
    return {Max(Max(visible.start, own.start), keys.start) - keys.start,
            Min(Min(visible.end, own.end), keys.end) - keys.start};
  }
  // Returns the same for all regions together.
  LONGEMBED_INLINE Span Seen(Span rows, Span keys) const {
    const Span visible = Visible(rows);
    return {Max(visible.start - keys.start, 0), Min(visible.end, keys.end) - keys.start};
  }
};

}  // namespace
}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_ATTENTION_REGIONS_H_
