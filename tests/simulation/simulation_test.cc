// Runs a thousand seeds in virtual time.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "tests/simulation/world.h"

namespace longembed {
namespace {

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* const value = std::getenv(name);
  return value == nullptr ? otherwise : std::strtoull(value, nullptr, 10);
}

// The environment variables SIMULATION_FIRST_SEED and SIMULATION_SEEDS select other seeds.
TEST(SimulationTest, EveryGuaranteeHoldsInEveryWorld) {
  const uint64_t first = FromEnvironment("SIMULATION_FIRST_SEED", 0);
  const uint64_t seeds = FromEnvironment("SIMULATION_SEEDS", LONGEMBED_SIMULATION_SEEDS);
  int failed = 0;
  for (uint64_t seed = first; seed < first + seeds && failed < 10; ++seed) {
    const std::vector<std::string> violations = Simulate(seed);
    for (const std::string& violation : violations) ADD_FAILURE() << "seed " << seed << ": " << violation;
    failed += violations.empty() ? 0 : 1;
  }
}

// Checks that a seed always leads to the same run, so that failures are reproducible.
TEST(SimulationTest, TheSameSeedGivesTheSameRun) {
  for (uint64_t seed = 0; seed < 5; ++seed) EXPECT_EQ(Simulate(seed), Simulate(seed)) << seed;
}

}  // namespace
}  // namespace longembed
