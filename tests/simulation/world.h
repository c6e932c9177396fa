// Worlds: callers that come and go, against a server in virtual time. Everything that happens follows from a seed.
//
//   const std::vector<std::string> violations = Simulate(seed);   // Empty: every promise held.
//
// Promises, in every world:
//   * every call is finished exactly once; every message of a stream is answered once, or its stream says why not,
//   after
//     all that was read before; answers of an in-order stream are in order;
//   * an answer is that of the text, whatever shared its batch, and its times are those that the call took;
//   * a refusal for overload has a retry delay; an idle server refuses nothing;
//   * encoders run nothing that is cancelled or late when its batch begins; a batch that is cancelled
//   any
//     more is given up, and no other is;
//   * each sequence runs once, in order, within the limits of a batch; a free worker takes what waits, and its batch
//     leaves out nothing that fits;
//   * an interactive call waits behind no batch of bulk work that began after it came;
//   * clients alternate at the tokenizer: what two that wait get differs by their largest texts at most;
//   * the ledger holds what calls hold, at any time; all gauges are exact, and at zero at the end;
//   * a drain ends in time.
// In worlds of one kind each:
//   * Crowd: one client asks for more than there is; another one's calls wait for a few batches, and are never refused;
//   * Shares: clients that always have work waiting get about as many tokens each;
//   * Tokenizer: clients ask for more than there is; what is accepted waits at most as long as was promised;
//   * Deadlines: all ask for more than there is, with deadlines; calls in time are most of what could be.
#ifndef LONGEMBED_TESTS_SIMULATION_WORLD_H_
#define LONGEMBED_TESTS_SIMULATION_WORLD_H_

#include <cstdint>
#include <string>
#include <vector>

namespace longembed {

std::vector<std::string> Simulate(uint64_t seed);

}  // namespace longembed

#endif  // LONGEMBED_TESTS_SIMULATION_WORLD_H_
