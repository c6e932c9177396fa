// Records what callers request and what the tokenizer and the encoders receive, and checks the guarantees that follow
// from it. It does not use the server's own metrics.
#ifndef LONGEMBED_TESTS_SIMULATION_CHECKER_H_
#define LONGEMBED_TESTS_SIMULATION_CHECKER_H_

#include <array>
#include <cstdint>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/encoder/packed_batch.h"
#include "server/batching/scheduler.h"
#include "tests/simulation/event_loop.h"
#include "tests/simulation/records.h"
#include "tests/simulation/turns.h"

namespace longembed {

// How a text becomes sequences.
enum class Shape {
  kWindows,  // Windows of 16 tokens, two of which are special tokens.
  kCut,      // One sequence: the text is truncated to 14 tokens.
  kWhole,    // One sequence: a text of more than 14 tokens is an error.
  kTokens,   // No sequence: the text is only tokenized.
};

// A batch that an encoder is running.
struct SimulatedBatch {
  int model = 0;
  absl::Time began;
  std::vector<std::shared_ptr<Call>> calls;  // Each call once.
  bool poisoned = false;
  bool oversized = false;
};

class Checker {
 public:
  struct Options {
    // Every tokenized call reaches a lane or is answered at once, and every batch runs once.
    bool exact = true;
    bool long_texts = false;
    // True if tokenizing takes no virtual time. If false, or with several workers, a batch may take longer because of
    // work that runs at the same time.
    bool no_tokenization_time = true;
    bool halves = false;  // A batch may run in halves. Each half runs unless the whole batch is cancelled.
    int models = 1;
    int workers = 1;
    int64_t max_batch_tokens = 64;
    size_t max_batch_sequences = 512;
    int64_t max_queued_tokens = 0;  // 0: not checked, because streams may exceed it.
    int64_t oversized = 1 << 20;    // Sequences with more tokens run alone.
  };

  Checker(const EventLoop& loop, const Options& options) : loop_(loop), options_(options) {}

  void Violate(const std::string& what) { violations_.insert(what); }
  const std::set<std::string>& violations() const { return violations_; }

  // Makes a text from words of these lengths. All its sequences begin with words that encode its number.
  std::unique_ptr<Text> MakeText(const std::vector<int>& words, Shape shape);
  // Returns the text with these bytes, or null if there is none.
  Text* TextOf(std::string_view text) const;

  // Records that a call reached the server. It stays open until it is answered or its caller has gone.
  void Begin(const std::shared_ptr<Call>& call);
  void End(Call& call);
  // Records that the call is not waiting for a tokenizer thread any more. Does nothing if it was not.
  void LeaveTokenizer(Call& call);
  const std::vector<std::shared_ptr<Call>>& open() const { return open_; }

  // Records that a call waits for a tokenizer thread, with the bytes of its texts as the cost.
  void JoinTokenizer(Call& call);
  // Record that a task of the pool begins, tokenizes texts, and ends.
  void BeginTask() { tasks_.emplace_back(); }
  void Tokenize(std::string_view text);
  void EndTask();
  // Checks that no text waits while a tokenizer thread is idle.
  void CheckNoTextWaits();

  SimulatedBatch BeginBatch(int model, const PackedBatch& batch);
  // Checks whether the encoder may continue. `cancelled` is the server's answer.
  void CheckCancelled(const SimulatedBatch& batch, bool cancelled);
  void EndBatch(const SimulatedBatch& batch);

  // Checks the queue at a time when nothing more happens, and the server has answered everything that it can.
  void CheckQuiet(int model, const QueueState& queue);
  // Checks the calls of a model whose lane reports that it has no job.
  void CheckIdle(int model);
  int running() const { return running_[0] + running_[1]; }

 private:
  static constexpr size_t kDigits = 3, kBase = 40, kLengthOfZero = 30, kMostTexts = kBase * kBase * kBase;

  std::shared_ptr<Call> Shared(const Call* call) const;
  Text* TextOf(std::span<const int32_t> tokens) const;
  bool LongTextRuns() const;
  bool CanRun(const Call& call) const;  // Whether the call's next sequence needs no more than a free worker.
  bool IsOversized(int64_t tokens) const { return tokens > options_.oversized; }
  void CheckSequence(const Text& text, int64_t tokens);
  void CheckSize(const SimulatedBatch& batch, const std::vector<int64_t>& sequences);
  void CheckOrder(const Call& first);
  void CheckRoomIsUsed(int model, const std::vector<int64_t>& sequences);

  const EventLoop& loop_;
  const Options options_;
  std::set<std::string> violations_;
  std::vector<Text*> texts_;  // Indexed by number.
  std::vector<std::shared_ptr<Call>> calls_, open_;
  // The running tasks of the pool, innermost last, with the calls that each has tokenized.
  std::vector<std::vector<Call*>> tasks_;
  std::array<int, 2> running_{};  // Running batches, by model.
  int oversized_running_ = 0;
  Turns turns_;
};

}  // namespace longembed

#endif  // LONGEMBED_TESTS_SIMULATION_CHECKER_H_
