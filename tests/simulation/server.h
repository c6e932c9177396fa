// A server in virtual time, on one thread. The hosts, operations, admission, ledger, pool, queues and scheduler are the
// real ones. The callers and the encoder are simulated.
#ifndef LONGEMBED_TESTS_SIMULATION_SERVER_H_
#define LONGEMBED_TESTS_SIMULATION_SERVER_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "server/api/longembed/operations.h"
#include "server/api/tei/operations.h"
#include "server/rpc/stream_host.h"
#include "tests/simulation/checker.h"
#include "tests/simulation/event_loop.h"
#include "tests/simulation/random.h"

namespace longembed {

struct SimulationOptions {
  bool failing = false;   // The tokenizer and the encoders fail at random.
  bool poisoned = false;  // Some texts fail every batch that they are in.
  bool scarce = false;    // Allocations fail.
  bool streams = true;
  bool long_texts = false;
  int models = 1;
  int workers = 1;
  int tokenizing = 1;  // The number of texts that are tokenized at a time.
  int64_t max_batch_tokens = 64;
  size_t max_batch_sequences = 512;
  int64_t oversized = 1 << 20;
  int64_t max_pending_bytes = 100 << 20;
  int64_t max_queued_tokens = 5000;
  absl::Duration max_wait = absl::Seconds(10);
  absl::Duration max_tokenizer_wait = absl::Seconds(10);
  absl::Duration tokenization;                             // Per byte.
  absl::Duration work_expected = absl::Milliseconds(200);  // For 100 tokens, before any batch has run.
  absl::Duration max_stream_age = absl::InfiniteDuration();

  bool small_ledger() const { return max_pending_bytes < 10 << 20; }
  // Returns true if any call may fail, whatever it requests.
  bool faulty() const { return failing || scarce; }
  // Returns true if every tokenized call reaches a lane or is answered at once, and every batch runs once.
  bool exact() const { return !faulty() && !poisoned && !(small_ledger() && streams); }
};

class SimulatedServer {
 public:
  SimulatedServer(uint64_t seed, const SimulationOptions& options);

  // Runs just before a call begins. Its request is ready.
  std::function<void()> before_call = [] {};
  // Runs with true before a caller inspects an answer, and with false after it.
  std::function<void(bool)> at_answer = [](bool) {};

  EventLoop& loop() { return loop_; }
  Random& random() { return random_; }
  Checker& checker() { return checker_; }
  const SimulationOptions& options() const { return options_; }
  const HostContext& host() const { return host_; }
  const LongembedContext& longembed() const { return *longembed_; }
  const TeiContext& tei() const { return *tei_; }
  const ApiMethod& embed() const { return embed_; }
  const ApiMethod& tokenize() const { return tokenize_; }
  ServedModel& model(int index) { return *models_.models()[static_cast<size_t>(index)]; }

  void Drain();
  bool draining() const { return draining_ != absl::InfiniteFuture(); }
  absl::Time drain_began() const { return draining_; }

  // Count the resources that callers hold: calls that were not released, and answers that were not read.
  void CountOpen(int more, int64_t request_bytes) {
    open_ += more;
    open_request_bytes_ += request_bytes;
  }
  void CountHeld(int64_t calls, int64_t answer_bytes) {
    calls_held_ += calls;
    answer_bytes_held_ += answer_bytes;
  }
  void AddStream(const std::weak_ptr<StreamHost>& stream) { live_streams_.push_back(stream); }

  // Do the work of encoders and tokenizers.
  absl::StatusOr<VectorBlock> Encode(int model, const PackedBatch& batch, absl::FunctionRef<bool()> is_cancelled);
  void Tokenize(std::string_view text);

  // Checks the state after everything has ended.
  void CheckEnd();

 private:
  // Runs the next step of one of the server's threads. Returns false if there is none.
  bool Step();
  bool StepPool();
  void TeachPool();
  void CheckLedger();
  void CheckQuiet();
  void CheckIdle();
  void CheckStall(int model, absl::Duration ran);

  const SimulationOptions options_;
  Random random_;
  EventLoop loop_;
  Checker checker_;
  LimitsConfig limits_;
  Admission admission_;
  Ledger ledger_;
  Scheduler scheduler_;
  Metrics metrics_{{}};
  ModelRegistry models_;
  Profiles profiles_;
  OpenStreams streams_;
  HostContext host_;
  std::unique_ptr<LongembedContext> longembed_;
  std::unique_ptr<TeiContext> tei_;
  ApiMethod embed_, tokenize_;
  absl::Time draining_ = absl::InfiniteFuture();
  int open_ = 0;  // Unfinished calls.
  int64_t open_request_bytes_ = 0;
  int64_t calls_held_ = 0, answer_bytes_held_ = 0;
  std::vector<std::weak_ptr<StreamHost>> live_streams_;
  int tokenizing_ = 0;
  int batches_ = 0;
  int64_t quiets_ = 0;
  bool has_stalled_ = false;
  absl::Time wake_;  // The time of the next check of the pool.
  WorkerPool pool_;
};

}  // namespace longembed

#endif  // LONGEMBED_TESTS_SIMULATION_SERVER_H_
