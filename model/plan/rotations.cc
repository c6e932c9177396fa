#include "model/plan/rotations.h"

#include <algorithm>
#include <memory>
#include <vector>

namespace longembed {
namespace {

template <typename RowOf>
std::shared_ptr<const RotaryTable> Gathered(const RotaryTable& table, int64_t n, RowOf row_of) {
  std::vector<int64_t> rows(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) rows[static_cast<size_t>(i)] = row_of(i);
  return std::make_shared<const RotaryTable>(GatherRows(table, rows));
}

}  // namespace

void SetRotations(const ModelManifest& model, const Positions& positions, RotaryTableCache& tables,
                  Sequence& sequence) {
  const int64_t n = sequence.size();
  const int64_t rows = positions.chunk_window > 0 ? std::max(n, positions.modulo + positions.chunk_window) : n;
  sequence.rotary = tables.Get(RotaryFrequencies(model, positions), RotaryAmplitude(model, positions), rows);
  const RotaryTable& table = *sequence.rotary;
  if (const int64_t g = positions.group, shift = positions.far_shift; positions.neighbor_window > 0) {
    sequence.neighbor_window = static_cast<int32_t>(positions.neighbor_window);
    sequence.rotary_grouped = Gathered(table, n, [g](int64_t i) { return i / g; });
    // For i within the neighbor window the shifted row may be outside the table. No pair at that distance has such a
    // later token, so the clamped row is never used.
    sequence.rotary_shifted =
        Gathered(table, n, [g, shift, n](int64_t i) { return std::clamp<int64_t>(i / g + shift, 0, n - 1); });
  }
  if (const int64_t s = positions.modulo, w = positions.chunk_window; w > 0) {
    sequence.chunk = static_cast<int32_t>(s);
    sequence.rotary_grouped = Gathered(table, n, [s, w](int64_t) { return s + w - 1; });
    sequence.rotary_shifted = Gathered(table, n, [s, w](int64_t i) { return s + std::min(i % s, w - 1); });
  }
  if (positions.moves_rows()) {
    sequence.rotary = Gathered(table, n, [&positions](int64_t i) { return positions.Row(i); });
  }
}

void ShareRotations(const Sequence& before, Sequence& sequence) {
  sequence.rotary = before.rotary;
  sequence.rotary_grouped = before.rotary_grouped;
  sequence.rotary_shifted = before.rotary_shifted;
  sequence.neighbor_window = before.neighbor_window;
  sequence.chunk = before.chunk;
}

}  // namespace longembed
