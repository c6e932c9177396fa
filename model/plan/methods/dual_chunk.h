// Dual chunk attention (arXiv 2402.17463). Tokens are divided into chunks of s. For a query i and a key j to its left,
// let p = i mod s. The positions of query and key are:
//   in the same chunk: p and j mod s, which gives the plain distance;
//   with the key in the previous chunk: s + min(p, w - 1) and j mod s, which gives the plain distance if p < w;
//   with the key in an earlier chunk: s + w - 1 and j mod s.
// In encoders, a key to the right is the mirror image: the key has the larger position and the query has i mod s, so
// the distance of (i, j) is the negative of that of (j, i). No distance exceeds s + w - 1, which is below Lo.
//
// Defaults, as in the paper: s = floor(3 Lo / 4) and w = Lo - s.
// If only s is given, w = Lo - s; if only w is given, s = Lo - w.
// With a default in use, a sequence of at most Lo tokens is plain. A sequence of a single chunk is always plain. A
// local window of l tokens in the published code corresponds to w = l + 1.
#ifndef LONGEMBED_MODEL_PLAN_METHODS_DUAL_CHUNK_H_
#define LONGEMBED_MODEL_PLAN_METHODS_DUAL_CHUNK_H_

#include <algorithm>
#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"
#include "model/manifest/manifest.h"
#include "model/plan/methods/positions.h"
#include "model/plan/methods/range.h"

namespace longembed {

struct DualChunk {
  static constexpr const char* kName = "dual_chunk";
  static constexpr bool kRotary = true, kMovesTokens = true, kAdaptive = true;
  std::optional<int64_t> chunk;         // s, 1 to Lo - 1.
  std::optional<int64_t> local_window;  // w, 1 to Lo - 1. s + w is at most Lo.

  template <typename Numbers>
  void Describe(Numbers& numbers) {
    numbers.Number("chunk", chunk);
    numbers.Number("local_window", local_window);
  }

  absl::Status Check(const ModelManifest& model) const {
    const int64_t max = model.trained_window - 1;
    if (absl::Status status = CheckCount("dual_chunk.chunk", chunk, 1, max); !status.ok()) return status;
    if (absl::Status status = CheckCount("dual_chunk.local_window", local_window, 1, max); !status.ok()) return status;
    if (!chunk.has_value() || !local_window.has_value() || *chunk + *local_window <= model.trained_window) {
      return absl::OkStatus();
    }
    return ExtensionConflict(
        "dual_chunk.local_window",
        absl::StrCat("is ", *local_window, "; with dual_chunk.chunk ", *chunk, " it makes distances of ",
                     *chunk + *local_window, " tokens; at most ", model.trained_window, " together"));
  }
  std::optional<int64_t> Reach(const ModelManifest&) const { return std::nullopt; }
  Positions Resolve(const ModelManifest& model, int64_t n) const {
    const int64_t window = model.trained_window;
    const bool adaptive = !chunk.has_value() || !local_window.has_value();
    if (adaptive && n <= window) return {};
    const int64_t s =
        chunk.value_or(local_window.has_value() ? window - *local_window : std::max<int64_t>(1, window * 3 / 4));
    if (n <= s) return {};
    return {.method = kName, .modulo = s, .chunk_window = local_window.value_or(std::max<int64_t>(1, window - s))};
  }
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_METHODS_DUAL_CHUNK_H_
