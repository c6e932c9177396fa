// Simulates workloads ("worlds"): callers that come and go, against a server in virtual time. A seed determines
// everything that happens.
//
//   const std::vector<std::string> violations = Simulate(seed);   // Empty: no guarantee was violated.
//
// Guarantees that are checked in every world:
//   * Every call is finished exactly once. Every message of a stream is answered once, after everything that was read
//     before it, or the stream's status says why not. Answers of an in-order stream are in order.
//   * An answer is that of its text, whatever else was in the batch. Its times are those that the call took.
//   * A refusal for overload has a retry delay. An idle server refuses nothing.
//   * Encoders run nothing that is cancelled or late when its batch begins. A running batch is given up if and only if
//     all of its calls are cancelled.
//   * Each sequence runs once, in order, within the limits of a batch. A free worker takes waiting work, and its batch
//     leaves out nothing that fits.
//   * An interactive call does not wait behind bulk batches that began after it arrived.
//   * Clients alternate at the tokenizer: the work that two waiting clients get differs by at most their largest texts.
//   * The ledger always holds what calls hold. All gauges are exact, and at zero at the end.
//   * A drain ends in time.
// Guarantees that are checked in special worlds:
//   * Crowd: one client requests more than the capacity. Calls of another client wait for a few batches only, and are
//     never refused.
//   * Shares: clients that always have work waiting get about as many tokens each.
//   * Tokenizer: clients request more than the capacity. Accepted texts wait at most as long as the configured limit.
//   * Deadlines: all clients have deadlines and request more than the capacity. Most of the possible calls are in time.
#ifndef LONGEMBED_TESTS_SIMULATION_WORLD_H_
#define LONGEMBED_TESTS_SIMULATION_WORLD_H_

#include <cstdint>
#include <string>
#include <vector>

namespace longembed {

std::vector<std::string> Simulate(uint64_t seed);

}  // namespace longembed

#endif  // LONGEMBED_TESTS_SIMULATION_WORLD_H_
