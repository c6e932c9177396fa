#include "model/plan/methods/positions.h"

namespace longembed {

std::vector<float> TableRows(const ModelManifest& model, const Positions& positions, int64_t n) {
  // A tuned table has `stride` rows per trained position. Plain sequences beyond Lo use every row, as in tuning.
  // Sequences within Lo use every stride-th row, which are the rows that the table was made from.
  const bool every_row = positions.is_plain() && n > model.trained_window;
  const int64_t stride = every_row ? 1 : model.position_stride;
  std::vector<float> rows(static_cast<size_t>(n));
  for (int64_t p = 0; p < n; ++p) {
    const double row = static_cast<double>(positions.Row(p)) / positions.interpolate;
    rows[static_cast<size_t>(p)] = static_cast<float>(row * static_cast<double>(stride));
  }
  return rows;
}

}  // namespace longembed
