// Keeps a record of what callers asked and of what tokenizer and encoders were given, and checks the promises that
// follow from it. Knows nothing of the server's own figures.
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

// Makes the sequences of a text, by method.
enum class Shape {
  kWindows,  // Windows of 16 tokens, two of which are special tokens.
  kCut,      // One sequence: the text is truncated to 14 tokens.
  kWhole,    // One sequence: a text of more than 14 tokens is an error.
  kTokens,   // None: the text is tokenized, and that is all.
};

// A batch that an encoder runs.
struct SimulatedBatch {
  int model = 0;
  absl::Time began;
  std::vector<std::shared_ptr<Call>> calls;  // Each once.
  bool poisoned = false;
  bool oversized = false;
};

class Checker {
 public:
  struct Options {
    // Whether every call that is tokenized reaches a lane or is answered at once, and every batch runs once.
    bool exact = true;
    bool long_texts = false;
    bool no_tokenization_time = true;  // Else, and with several workers, a batch may wait for what runs beside it.
    bool halves = false;               // A batch may run in halves, each while the whole is not cancelled.
    int models = 1;
    int workers = 1;
    int64_t max_batch_tokens = 64;
    size_t max_batch_sequences = 512;
    int64_t max_queued_tokens = 0;  // 0: streams may go beyond.
    int64_t oversized = 1 << 20;    // Sequences of more tokens run alone.
  };

  Checker(const EventLoop& loop, const Options& options) : loop_(loop), options_(options) {}

  void Violate(const std::string& what) { violations_.insert(what); }
  const std::set<std::string>& violations() const { return violations_; }

  // Makes a text of words of these lengths. Its sequences all begin with words that number it.
  std::unique_ptr<Text> MakeText(const std::vector<int>& words, Shape shape);
  // The text whose bytes these are; null when it has none.
  Text* TextOf(std::string_view text) const;

  // A call reaches the server; it stays open until it is answered or its caller has gone.
  void Begin(const std::shared_ptr<Call>& call);
  void End(Call& call);
  // It waits for no thread that tokenizes, or no longer.
  void LeaveTokenizer(Call& call);
  const std::vector<std::shared_ptr<Call>>& open() const { return open_; }

  // A call waits for a thread that tokenizes, with so many bytes.
  void JoinTokenizer(Call& call);
  // A task of the pool begins, tokenizes texts, and ends.
  void BeginTask() { tasks_.emplace_back(); }
  void Tokenize(std::string_view text);
  void EndTask();
  // A thread that tokenizes has nothing to do.
  void CheckTokenizerIsFree();

  SimulatedBatch BeginBatch(int model, const PackedBatch& batch);
  // Whether the encoder may go on, `cancelled` is what the server says.
  void CheckCancelled(const SimulatedBatch& batch, bool cancelled);
  void EndBatch(const SimulatedBatch& batch);

  // Nothing happens at this time any more, and the server has answered all it can.
  void CheckQuiet(int model, const QueueState& queue);
  // The model's lane says that it has no job.
  void CheckIdle(int model);
  int running() const { return running_[0] + running_[1]; }

 private:
  static constexpr size_t kDigits = 3, kBase = 40, kDigit = 30, kMostTexts = kBase * kBase * kBase;

  std::shared_ptr<Call> Shared(const Call* call) const;
  Text* TextOf(std::span<const int32_t> tokens) const;
  bool LongTextRuns() const;
  bool CanRun(const Call& call) const;  // Its next sequence needs no more than a free worker.
  bool IsOversized(int64_t tokens) const { return tokens > options_.oversized; }
  void CheckSequence(const Text& text, int64_t tokens);
  void CheckSize(const SimulatedBatch& batch, const std::vector<int64_t>& sequences);
  void CheckOrder(const Call& first);
  void CheckRoomIsUsed(int model, const std::vector<int64_t>& sequences);

  const EventLoop& loop_;
  const Options options_;
  std::set<std::string> violations_;
  std::vector<Text*> texts_;  // By number.
  std::vector<std::shared_ptr<Call>> calls_, open_;
  std::vector<std::vector<Call*>> tasks_;  // Those of the pool that run, the innermost last: calls tokenized.
  std::array<int, 2> running_{};           // Batches, by model.
  int oversized_running_ = 0;
  Turns turns_;
};

}  // namespace longembed

#endif  // LONGEMBED_TESTS_SIMULATION_CHECKER_H_
