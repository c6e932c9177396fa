// Random choices, determined by a seed.
#ifndef LONGEMBED_TESTS_SIMULATION_RANDOM_H_
#define LONGEMBED_TESTS_SIMULATION_RANDOM_H_

#include <cstdint>
#include <random>
#include <vector>

#include "absl/time/time.h"

namespace longembed {

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  int64_t Between(int64_t low, int64_t high) {
    const auto choices = static_cast<uint64_t>(high - low) + 1;
    return low + static_cast<int64_t>(engine_() % choices);
  }
  bool OneIn(int64_t n) { return Between(1, n) == 1; }
  absl::Duration UpTo(absl::Duration most) { return absl::Microseconds(Between(0, absl::ToInt64Microseconds(most))); }
  template <typename T>
  const T& Of(const std::vector<T>& values) {
    return values[static_cast<size_t>(Between(0, static_cast<int64_t>(values.size()) - 1))];
  }

 private:
  std::mt19937_64 engine_;
};

}  // namespace longembed

#endif  // LONGEMBED_TESTS_SIMULATION_RANDOM_H_
