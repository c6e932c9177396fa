// NUMA: machines with several memory nodes (sockets), on which a core reads its own node's memory faster than
// another's.
#ifndef LONGEMBED_SYSTEM_MEMORY_NODES_H_
#define LONGEMBED_SYSTEM_MEMORY_NODES_H_

#include <cstddef>

namespace longembed {

// Returns the number of nodes whose memory this process may use, or 1 if unknown.
int MemoryNodes();

// Makes the system distribute pages over the nodes, page by page, when they are first written. Threads of every node
// read the same weights, and if these were all on one node, its memory would be a bottleneck. `data` must be on a page
// boundary. Has no effect on a machine with one node, or if the system forbids it, as a container's seccomp profile
// may. Each page is then on the node of the thread that first writes it, which also spreads weights, because all
// threads write them.
void InterleaveOverNodes(std::byte* data, size_t size);

}  // namespace longembed

#endif  // LONGEMBED_SYSTEM_MEMORY_NODES_H_
