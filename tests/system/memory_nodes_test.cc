#include "system/memory_nodes.h"

#include <gtest/gtest.h>

#if defined(__linux__)
#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "model/encoder/cpu/aligned_buffer.h"

namespace longembed::cpu {
namespace {

// Returns the number of entries of a list. For "0-1,3" it is 3.
int CountOfList(const std::string& list) {
  int count = 0;
  for (const absl::string_view part : absl::StrSplit(list, ',', absl::SkipEmpty())) {
    const std::vector<std::string> ends = absl::StrSplit(part, '-');
    count += std::atoi(ends.back().c_str()) - std::atoi(ends.front().c_str()) + 1;
  }
  return count;
}

TEST(MemoryNodesTest, EqualTheNodesThatTheSystemAllows) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    const std::string key = "Mems_allowed_list:\t";
    if (line.starts_with(key)) {
      EXPECT_EQ(MemoryNodes(), CountOfList(line.substr(key.size())));
      return;
    }
  }
  GTEST_SKIP() << "the system does not say which nodes it allows";
}

#if defined(__linux__)
TEST(MemoryNodesTest, PagesAreInterleaved) {
  if (MemoryNodes() == 1) GTEST_SKIP() << "this machine has one memory node";
  AlignedBuffer buffer(2 * AlignedBuffer::kHugePage);
  InterleaveOverNodes(buffer.data(), buffer.size());
  int policy = -1;
  ASSERT_EQ(syscall(SYS_get_mempolicy, &policy, nullptr, 0, buffer.data(), MPOL_F_ADDR), 0);
  EXPECT_EQ(policy, MPOL_INTERLEAVE);
  buffer.data()[buffer.size() - 1] = std::byte{1};
}
#endif

}  // namespace
}  // namespace longembed::cpu
