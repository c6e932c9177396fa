// A server in virtual time: the real hosts, operations, admission, ledger, pool, queue and scheduler, between a fake
// transport and a fake encoder, on one thread. Everything that happens follows from a seed.
//
//   const std::vector<std::string> violations = Simulate(seed);   // Empty: every promise held.
//
// Promises:
//   * every call is finished exactly once, every message of a stream is answered once, or its stream says why not;
//   * an answer is that of the text, whatever shared its batch;
//   * a refusal for overload has a retry delay;
//   * the encoder runs nothing whose callers have all gone, or are late, when its batch begins;
//   * no bulk batch begins while an interactive job waits;
//   * the ledger holds what calls hold: it is never negative, and nothing at the end, as are all gauges;
//   * a drain ends in time, and whatever is admitted before it is finished.
#ifndef LONGEMBED_TESTS_SIMULATION_WORLD_H_
#define LONGEMBED_TESTS_SIMULATION_WORLD_H_

#include <cstdint>
#include <string>
#include <vector>

namespace longembed {

std::vector<std::string> Simulate(uint64_t seed);

}  // namespace longembed

#endif  // LONGEMBED_TESTS_SIMULATION_WORLD_H_
