#include "model/plan/windows.h"

#include <algorithm>

namespace longembed {

int64_t CountWindows(int64_t content, int64_t room, int64_t overlap) {
  const int64_t stride = room - overlap;
  return 1 + (std::max<int64_t>(0, content - room) + stride - 1) / stride;
}

std::vector<Range> CutWindows(int64_t content, int64_t room, int64_t overlap, LastWindow last) {
  const int64_t count = CountWindows(content, room, overlap);
  std::vector<Range> windows;
  windows.reserve(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    int64_t start = i * (room - overlap);
    const int64_t end = std::min(start + room, content);
    if (last == LastWindow::kBackExtended) start = std::max<int64_t>(0, end - room);
    windows.push_back({static_cast<int32_t>(start), static_cast<int32_t>(end)});
  }
  return windows;
}

std::vector<Range> GroupNeighbors(int64_t count, int64_t groups) {
  groups = std::min(groups, count);
  std::vector<Range> runs;
  runs.reserve(static_cast<size_t>(groups));
  int32_t start = 0;
  for (int64_t i = 0; i < groups; ++i) {
    const auto size = static_cast<int32_t>(count / groups + (i < count % groups ? 1 : 0));
    runs.push_back({start, start + size});
    start += size;
  }
  return runs;
}

std::vector<Range> TokensOfWindows(std::span<const Range> windows) {
  std::vector<Range> owned(windows.begin(), windows.end());
  for (size_t i = 1; i < windows.size(); ++i) {
    // Token p is end - 1 - p tokens from the end of the previous window, and p - start from the beginning of this one.
    const int32_t first = (windows[i - 1].end + windows[i].start + 1) / 2;
    owned[i - 1].end = owned[i].start = first;
  }
  return owned;
}

}  // namespace longembed
