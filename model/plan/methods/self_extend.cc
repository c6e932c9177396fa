#include "model/plan/methods/self_extend.h"

#include "model/plan/methods/range.h"
#include "system/return_if_error.h"

namespace longembed {

absl::Status SelfExtend::Check(const ModelManifest& model) const {
  // With one token per group nothing is extended, and no neighbor window can be computed.
  const int64_t least_group = neighbor_window.has_value() ? 1 : 2;
  RETURN_IF_ERROR(CheckCount("self_extend.group", group, least_group, kMaxFactor));
  return CheckCount("self_extend.neighbor_window", neighbor_window, 1, model.trained_window - 1);
}

std::optional<int64_t> SelfExtend::Reach(const ModelManifest& model) const {
  const int64_t window = model.trained_window;
  // Beyond Lo * Lo tokens the adaptive neighbor window, floor(Lo / s), would be empty.
  if (!group.has_value() && !neighbor_window.has_value()) return window * window;
  if (!group.has_value()) return std::nullopt;
  // Without a neighbor window, the smallest possible one, 1 token, gives the largest capacity.
  const int64_t w = neighbor_window.value_or(1);
  return *group * (window - w) + w;
}

std::optional<int64_t> SelfExtend::DefaultWindow(const ModelManifest& model) const {
  return neighbor_window.has_value() ? Reach(model) : model.trained_window;
}

Positions SelfExtend::Resolve(const ModelManifest& model, int64_t n) const {
  const int64_t window = model.trained_window;
  const bool adaptive = !group.has_value() || !neighbor_window.has_value();
  if (adaptive && n <= window) return {};
  Positions positions{.method = kName};
  if (!adaptive) {
    positions.group = *group;
    positions.neighbor_window = *neighbor_window;
  } else if (group.has_value()) {
    positions.group = *group;
    positions.neighbor_window = (*group * window - n) / (*group - 1);
  } else if (neighbor_window.has_value()) {
    positions.neighbor_window = *neighbor_window;
    positions.group = CeilDivide(n - *neighbor_window, window - *neighbor_window);
  } else {
    const int64_t s = CeilDivide(n, window);
    positions.group = s + 1;
    positions.neighbor_window = window / s;
  }
  positions.far_shift = positions.neighbor_window - positions.neighbor_window / positions.group;
  // If all tokens are within the neighbor window of each other, the sequence is plain.
  return n <= positions.neighbor_window ? Positions() : positions;
}

}  // namespace longembed
