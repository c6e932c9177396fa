#include "model/plan/windows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

namespace longembed {
namespace {

using ::testing::ElementsAre;

TEST(WindowsTest, TheLastWindowIsMovedBackOrStaysShort) {
  EXPECT_THAT(CutWindows(10, 4, 0, LastWindow::kShort), ElementsAre(Range{0, 4}, Range{4, 8}, Range{8, 10}));
  EXPECT_THAT(CutWindows(10, 4, 0, LastWindow::kBackExtended), ElementsAre(Range{0, 4}, Range{4, 8}, Range{6, 10}));
  EXPECT_THAT(CutWindows(3, 4, 1, LastWindow::kBackExtended), ElementsAre(Range{0, 3}));
  EXPECT_THAT(CutWindows(8, 4, 0, LastWindow::kShort), ElementsAre(Range{0, 4}, Range{4, 8}));
}

// Compares with a walk over the tokens, one at a time.
TEST(WindowsTest, CoverEveryTokenInOrder) {
  std::mt19937 random(2);
  for (int i = 0; i < 3000; ++i) {
    const int64_t content = std::uniform_int_distribution<int64_t>(1, 200)(random);
    const int64_t room = std::uniform_int_distribution<int64_t>(1, 60)(random);
    const int64_t overlap = std::uniform_int_distribution<int64_t>(0, room - 1)(random);
    const LastWindow last = i % 2 == 0 ? LastWindow::kShort : LastWindow::kBackExtended;
    const std::vector<Range> windows = CutWindows(content, room, overlap, last);
    ASSERT_EQ(static_cast<int64_t>(windows.size()), CountWindows(content, room, overlap));
    std::vector<int> seen(static_cast<size_t>(content));
    for (size_t w = 0; w < windows.size(); ++w) {
      ASSERT_LE(windows[w].size(), room);
      ASSERT_GT(windows[w].size(), 0);
      ASSERT_TRUE(w + 1 == windows.size() || windows[w].size() == room);
      ASSERT_TRUE(w + 2 >= windows.size() || windows[w].end - windows[w + 1].start == overlap);
      for (int32_t t = windows[w].start; t < windows[w].end; ++t) ++seen[static_cast<size_t>(t)];
    }
    ASSERT_EQ(windows.back().end, content);
    ASSERT_TRUE(std::all_of(seen.begin(), seen.end(), [](int count) { return count > 0; }));
    // The last window but one must not reach the end, because then the last one would be superfluous.
    ASSERT_TRUE(windows.size() == 1 || windows[windows.size() - 2].end < content);
    ASSERT_TRUE(last == LastWindow::kShort || content < room || windows.back().size() == room);
  }
}

TEST(WindowsTest, NeighborsFormEvenGroups) {
  EXPECT_THAT(GroupNeighbors(7, 3), ElementsAre(Range{0, 3}, Range{3, 5}, Range{5, 7}));
  EXPECT_THAT(GroupNeighbors(2, 8), ElementsAre(Range{0, 1}, Range{1, 2}));
  for (int32_t count = 1; count < 40; ++count) {
    for (int64_t groups = 1; groups < 45; ++groups) {
      const std::vector<Range> runs = GroupNeighbors(count, groups);
      ASSERT_EQ(std::ssize(runs), std::min<int64_t>(groups, count));
      EXPECT_EQ(runs.front().start, 0);
      EXPECT_EQ(runs.back().end, count);
      for (size_t i = 0; i < runs.size(); ++i) {
        EXPECT_GE(runs[i].size(), 1);
        EXPECT_LE(runs.front().size() - runs[i].size(), 1);
        if (i == 0) continue;
        EXPECT_EQ(runs[i].start, runs[i - 1].end);
        EXPECT_LE(runs[i].size(), runs[i - 1].size());
      }
    }
  }
}

// Compares with the definition: of the windows that contain a token, the one whose nearest edge is farthest away. Edges
// at the start and at the end of the text do not count.
TEST(WindowsTest, EachTokenBelongsToTheWindowInWhichItIsFarthestFromAnEdge) {
  std::mt19937 random(11);
  for (int round = 0; round < 300; ++round) {
    const int content = std::uniform_int_distribution(1, 120)(random);
    const int room = std::uniform_int_distribution(1, 30)(random);
    const int overlap = std::uniform_int_distribution(0, room - 1)(random);
    const auto last = round % 2 == 0 ? LastWindow::kBackExtended : LastWindow::kShort;
    const std::vector<Range> windows = CutWindows(content, room, overlap, last);
    const std::vector<Range> owned = TokensOfWindows(windows);
    ASSERT_EQ(owned.size(), windows.size());
    for (int p = 0; p < content; ++p) {
      const auto margin = [&](const Range& w) {
        if (p < w.start || p >= w.end) return -1;
        return std::min(w.start == 0 ? content : p - w.start, w.end == content ? content : w.end - 1 - p);
      };
      const auto best = std::ranges::max_element(windows, {}, margin);  // Of equal windows, the first counts.
      const auto owner = std::ranges::find_if(owned, [p](const Range& w) { return p >= w.start && p < w.end; });
      ASSERT_NE(owner, owned.end());
      EXPECT_EQ(owner - owned.begin(), best - windows.begin())
          << p << " of " << content << ", " << room << ", " << overlap;
    }
    for (size_t i = 1; i < owned.size(); ++i) EXPECT_EQ(owned[i].start, owned[i - 1].end);
  }
}

}  // namespace
}  // namespace longembed
