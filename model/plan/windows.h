// Divides content into parallel context windows. Pure functions that any thread can call.
#ifndef LONGEMBED_MODEL_PLAN_WINDOWS_H_
#define LONGEMBED_MODEL_PLAN_WINDOWS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "model/plan/extension.h"
#include "model/plan/sequence.h"

namespace longembed {

// Returns the number of windows: 1 + ceil(max(0, content - room) / (room - overlap)).
int64_t CountWindows(int64_t content, int64_t room, int64_t overlap);

// Returns windows as ranges of content tokens, in order, that cover [0, content). A window holds up to `room` content
// tokens. Requires 0 <= overlap < room.
std::vector<Range> CutWindows(int64_t content, int64_t room, int64_t overlap, LastWindow last);

// Divides `count` windows into min(count, groups) runs of neighbors whose sizes differ by at most 1, the larger ones
// first. Requires count >= 1 and groups >= 1.
std::vector<Range> GroupNeighbors(int64_t count, int64_t groups);

// Assigns each content token to exactly one of the windows from CutWindows, and returns the tokens of each window. In
// the overlap of two neighbors, a token belongs to the window whose edge inside the overlap is farther from it, or to
// the earlier window if both are equally far. The ranges cover the content without overlaps, and none is empty.
std::vector<Range> TokensOfWindows(std::span<const Range> windows);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_WINDOWS_H_
