// Memory of machines with several nodes (sockets), where a core reads its own node's memory faster than another's.
#ifndef LONGEMBED_SYSTEM_MEMORY_NODES_H_
#define LONGEMBED_SYSTEM_MEMORY_NODES_H_

#include <cstddef>

namespace longembed {

// Nodes whose memory this process may use; 1 where the system does not say.
int MemoryNodes();

// Spreads pages over the nodes, page by page, as they are first written: threads of every node read the same weights,
// and on one node they would all wait for its memory. `data` is on a page boundary. Does nothing with one node, and
// where the system forbids it (a container's seccomp profile may): pages then lie on the node of the thread that writes
// them first, and weights are written by all threads.
void InterleaveOverNodes(std::byte* data, size_t size);

}  // namespace longembed

#endif  // LONGEMBED_SYSTEM_MEMORY_NODES_H_
