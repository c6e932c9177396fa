// Clients of a simulated server. Each checks what it is told.
#ifndef LONGEMBED_TESTS_SIMULATION_CALLERS_H_
#define LONGEMBED_TESTS_SIMULATION_CALLERS_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "tests/simulation/server.h"

namespace longembed {

// Lengths of the words of a text.
using Words = std::vector<int>;

struct UnarySpec {
  bool tokenize = false;  // Else Embed.
  std::string client = "10.0.0.1";
  int model = 0;
  bool bulk = false;
  bool partial_results = false;
  bool window_vectors = false;  // A vector of each window.
  std::vector<Words> texts;
  bool poison = false;  // The last text fails every batch that it is in.
  size_t blanks = 0;    // After each text: bytes that are no tokens.
  absl::Duration time_left = absl::InfiniteDuration();
  absl::Duration cancel_after = absl::InfiniteDuration();
  // Its outcome and duration.
  std::function<void(const absl::Status& status, absl::Duration took)> then;
};
void CallUnary(SimulatedServer& server, UnarySpec spec);

struct StreamSpec {
  bool tei = false;  // In order, and ended by an error of a message. Else longembed.v1.
  std::string client = "10.0.1.1";
  int model = 0;
  bool bulk = false;
  std::vector<Words> texts;
  bool in_parts = false;    // Some texts come in two parts.
  bool unfinished = false;  // The last part never comes.
  bool unpaced = false;     // The client sends and reads without a pause.
  size_t max_messages = 64;
  int64_t max_bytes = 1 << 20;
  absl::Duration go_away_after = absl::InfiniteDuration();
};
void CallStream(SimulatedServer& server, StreamSpec spec);

}  // namespace longembed

#endif  // LONGEMBED_TESTS_SIMULATION_CALLERS_H_
