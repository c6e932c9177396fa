// Parallel context windows: where to cut. Pure functions: any thread.
#ifndef LONGEMBED_MODEL_PLAN_WINDOWS_H_
#define LONGEMBED_MODEL_PLAN_WINDOWS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "model/plan/extension.h"
#include "model/plan/sequence.h"

namespace longembed {

// 1 + ceil(max(0, content - room) / (room - overlap)).
int64_t CountWindows(int64_t content, int64_t room, int64_t overlap);

// Ranges of content tokens, in order, that cover [0, content). `room` content tokens fit a window; 0 <= overlap < room.
std::vector<Range> CutWindows(int64_t content, int64_t room, int64_t overlap, LastWindow last);

// `count` windows in min(count, groups) runs of neighbors whose sizes differ by at most 1, the larger ones first.
// count, groups >= 1.
std::vector<Range> GroupNeighbors(int64_t count, int64_t groups);

// For each window of CutWindows the content tokens that it stands for where each token counts once: of neighbors, a
// token belongs to the one whose edge, within the text, is farther from it, the earlier one of equals. They cover the
// content without overlaps, and none is empty.
std::vector<Range> TokensOfWindows(std::span<const Range> windows);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_WINDOWS_H_
