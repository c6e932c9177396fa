// The callers' view of a simulated world: each call, what it asks for, and how far it has come.
#ifndef LONGEMBED_TESTS_SIMULATION_RECORDS_H_
#define LONGEMBED_TESTS_SIMULATION_RECORDS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace longembed {

struct Call;

struct Text {
  Call* call = nullptr;
  std::string text;
  std::vector<int64_t> sequences;  // Tokens of each sequence, in order. Empty: the text never reaches an encoder.
  double value = 0;                // First component of its vector.
  size_t started = 0;              // Sequences that an encoder was given.
  bool poison = false;             // Every batch with one of its sequences fails.
};

// A unary call or a message of a stream: one job at most.
struct Call {
  std::string client;
  int model = 0;
  bool interactive = true;
  bool streamed = false;
  absl::Time deadline = absl::InfiniteFuture();
  std::vector<std::unique_ptr<Text>> texts;
  int64_t request_bytes = 0;

  bool alone = false;     // No other call has been open since it began.
  double pool_bytes = 0;  // Its cost on a tokenizing thread.
  double pool_cost = 0;   // The same while it waits for one.
  bool tokenized = false;
  bool queued = false;  // Its job has been given to a lane.
  bool over = false;    // It was answered, or its caller has gone.
  absl::Time began;
  absl::Time queued_at;
  absl::Duration inference;     // Sum over the batches that it took part in.
  int bulk_batches_before = 0;  // Batches of bulk work that began while it waited.

  bool Waits() const { return queued && !over && Next() != nullptr; }
  // The first sequence that no encoder was given, in tokens; null when there is none.
  const int64_t* Next() const {
    for (const std::unique_ptr<Text>& text : texts) {
      if (text->started < text->sequences.size()) return &text->sequences[text->started];
    }
    return nullptr;
  }
  int64_t WaitingTokens() const {
    int64_t tokens = 0;
    for (const std::unique_ptr<Text>& text : texts) {
      for (size_t i = text->started; i < text->sequences.size(); ++i) tokens += text->sequences[i];
    }
    return tokens;
  }
};

}  // namespace longembed

#endif  // LONGEMBED_TESTS_SIMULATION_RECORDS_H_
