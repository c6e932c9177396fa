// The callers' view of a simulated server: each call, what it requests, and its progress.
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
  double value = 0;                // First component of the expected vector.
  size_t started = 0;              // Number of sequences that an encoder has received.
  bool poison = false;             // Every batch with one of its sequences fails.
};

// A unary call, or one message of a stream. It becomes at most one job.
struct Call {
  std::string client;
  int model = 0;
  bool interactive = true;
  bool streamed = false;
  absl::Time deadline = absl::InfiniteFuture();
  std::vector<std::unique_ptr<Text>> texts;
  int64_t request_bytes = 0;

  bool alone = false;     // No other call has been open since this one began.
  double pool_bytes = 0;  // Its cost on a tokenizer thread.
  double pool_cost = 0;   // The same cost while the call waits for a thread, otherwise 0.
  bool tokenized = false;
  bool queued = false;  // Its job was given to a lane.
  bool over = false;    // It was answered, or its caller has gone.
  absl::Time began;
  absl::Time queued_at;
  absl::Duration inference;     // Sum over the batches that the call took part in.
  int bulk_batches_before = 0;  // Bulk batches that began while the call waited.

  bool Waits() const { return queued && !over && Next() != nullptr; }
  // Returns the tokens of the first sequence that no encoder has received, or null if there is none.
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
