#include "system/memory_nodes.h"

#if defined(__linux__)
#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <array>
#include <bit>

namespace longembed {

#if defined(__linux__)
namespace {

constexpr unsigned long kBits = 8 * sizeof(unsigned long);
using NodeMask = std::array<unsigned long, 1024 / kBits>;  // Linux supports at most 1024 nodes.

// Returns the nodes that this process may use; empty if unknown.
NodeMask AllowedNodes() {
  NodeMask nodes{};
  if (syscall(SYS_get_mempolicy, nullptr, nodes.data(), nodes.size() * kBits, nullptr, MPOL_F_MEMS_ALLOWED) != 0) {
    nodes.fill(0);
  }
  return nodes;
}

int Count(const NodeMask& nodes) {
  int count = 0;
  for (const unsigned long bits : nodes) count += std::popcount(bits);
  return count;
}

}  // namespace

int MemoryNodes() { return std::max(1, Count(AllowedNodes())); }

void InterleaveOverNodes(std::byte* data, size_t size) {
  const NodeMask nodes = AllowedNodes();
  if (Count(nodes) > 1) syscall(SYS_mbind, data, size, MPOL_INTERLEAVE, nodes.data(), nodes.size() * kBits, 0);
}
#else
int MemoryNodes() { return 1; }
void InterleaveOverNodes(std::byte*, size_t) {}
#endif

}  // namespace longembed
