// Clients of a simulated server. Each checks the answers that it gets.
#ifndef LONGEMBED_TESTS_SIMULATION_CALLERS_H_
#define LONGEMBED_TESTS_SIMULATION_CALLERS_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "tests/simulation/server.h"

namespace longembed {

// The lengths of the words of a text.
using Words = std::vector<int>;

struct UnarySpec {
  bool tokenize = false;  // False: Embed.
  std::string client = "10.0.0.1";
  int model = 0;
  bool bulk = false;
  bool partial_results = false;
  bool window_vectors = false;  // Requests one vector per window.
  std::vector<Words> texts;
  bool poison = false;  // The last text fails every batch that it is in.
  size_t blanks = 0;    // Bytes after each text that belong to no token.
  absl::Duration time_left = absl::InfiniteDuration();
  absl::Duration cancel_after = absl::InfiniteDuration();
  // Called with the outcome and the duration of the call.
  std::function<void(const absl::Status& status, absl::Duration took)> then;
};
void CallUnary(SimulatedServer& server, UnarySpec spec);

struct StreamSpec {
  bool tei = false;  // TEI: answers are in order, and an error of a message ends the stream. False: longembed.v1.
  std::string client = "10.0.1.1";
  int model = 0;
  bool bulk = false;
  std::vector<Words> texts;
  bool in_parts = false;    // Some texts are sent in two parts.
  bool unfinished = false;  // The last part is never sent.
  bool unpaced = false;     // The client sends and reads without pauses.
  size_t max_messages = 64;
  int64_t max_bytes = 1 << 20;
  absl::Duration go_away_after = absl::InfiniteDuration();
};
void CallStream(SimulatedServer& server, StreamSpec spec);

}  // namespace longembed

#endif  // LONGEMBED_TESTS_SIMULATION_CALLERS_H_
