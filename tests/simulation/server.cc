#include "tests/simulation/server.h"

#include <algorithm>
#include <limits>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"
#include "server/errors/errors.h"
#include "tests/testing/fake_tokenizer.h"

namespace longembed {
namespace {

class SimulatedEncoder final : public Encoder {
 public:
  SimulatedEncoder(SimulatedServer& server, int model) : server_(server), model_(model) {}
  absl::StatusOr<VectorBlock> Encode(const PackedBatch& batch, Team::Leader&,
                                     absl::FunctionRef<bool()> is_cancelled) override {
    return server_.Encode(model_, batch, is_cancelled);
  }
  int hidden_size() const override { return 4; }
  std::string device() const override { return "simulated"; }
  std::string engine() const override { return "simulated"; }

 private:
  SimulatedServer& server_;
  const int model_;
};

class SimulatedTokenizer final : public Tokenizer {
 public:
  explicit SimulatedTokenizer(SimulatedServer& server) : server_(server) {}
  absl::StatusOr<TokenizedText> Tokenize(std::string_view text, int64_t enough, const HoldMemory& hold) const override {
    server_.Tokenize(text);
    return fake_.Tokenize(text, enough, hold);
  }
  absl::StatusOr<std::string> TokenText(int32_t id) const override { return fake_.TokenText(id); }
  absl::StatusOr<std::string> Decode(std::span<const uint32_t> ids, bool skip) const override {
    return fake_.Decode(ids, skip);
  }
  int32_t vocabulary_size() const override { return fake_.vocabulary_size(); }

 private:
  SimulatedServer& server_;
  const FakeTokenizer fake_;
};

// The most bytes that the ledger counts only after they were allocated, for the messages of answers.
constexpr int64_t kMostCorrected = 4 << 10;
constexpr absl::Duration kBatchTime = absl::Microseconds(500), kTokenTime = absl::Milliseconds(2);

Checker::Options CheckerOptions(const SimulationOptions& options) {
  return {.exact = options.exact(),
          .long_texts = options.long_texts,
          .no_tokenization_time = options.tokenization == absl::ZeroDuration(),
          .halves = options.faulty(),
          .models = options.models,
          .workers = options.workers,
          .max_batch_tokens = options.max_batch_tokens,
          .max_batch_sequences = options.max_batch_sequences,
          .max_queued_tokens = options.streams ? 0 : options.max_queued_tokens,
          .oversized = options.oversized};
}

}  // namespace

SimulatedServer::SimulatedServer(uint64_t seed, const SimulationOptions& options)
    : options_(options),
      random_(seed),
      checker_(loop_, CheckerOptions(options)),
      admission_({.max_wait = options.max_wait, .max_bulk_wait = 2 * options.max_wait}, loop_),
      ledger_(options.max_pending_bytes),
      scheduler_({.workers = options.workers, .threads = false}, loop_),
      host_{.clock = loop_,
            .metrics = metrics_,
            .ledger = ledger_,
            .max_request_bytes = 1 << 20,
            .streams = &streams_,
            .max_stream_age = options.max_stream_age},
      pool_(0, loop_, options.max_tokenizer_wait) {
  limits_.max_request_bytes = 1 << 20;
  const ServedModelOptions model_options{
      .lane = {.batch = {.max_tokens = options.max_batch_tokens, .max_sequences = options.max_batch_sequences},
               .costs = {.oversized = options.oversized}},
      .max_queued_tokens = options.max_queued_tokens};
  for (int i = 0; i < options.models; ++i) {
    Model model{FakeManifest(), std::make_unique<SimulatedTokenizer>(*this)};
    auto served = std::make_unique<ServedModel>(
        absl::StrCat("model", i), std::make_unique<const Model>(std::move(model)),
        std::make_unique<SimulatedEncoder>(*this, i), Device{scheduler_, admission_}, model_options, metrics_);
    served->lane().SeedThroughput(100, options.work_expected);
    if (!models_.Add(std::move(served)).ok()) checker_.Violate("a model cannot be added");
  }
  const ApiContext api{.models = models_, .pool = pool_, .clock = loop_, .limits = limits_};
  longembed_ = std::make_unique<LongembedContext>(LongembedContext{api, profiles_});
  tei_ = std::make_unique<TeiContext>(TeiContext{api, model(0), "", std::nullopt, "1"});
  embed_ = EmbedMethod(*longembed_);
  tokenize_ = TokenizeMethod(*longembed_);
  TeachPool();
  loop_.set_threads([this] { return Step(); });
}

// Teaches the pool how long a text takes, from texts that it has tokenized.
void SimulatedServer::TeachPool() {
  constexpr int64_t kBytes = 10'000;
  for (int i = 0; i < 60; ++i) {
    pool_.Run([this] { loop_.RunUntil(loop_.Now() + kBytes * options_.tokenization); }, {.bytes = kBytes});
    pool_.Step();
  }
  const absl::Duration expected = pool_.ExpectedTime({.bytes = kBytes}), truth = kBytes * options_.tokenization;
  if (absl::AbsDuration(expected - truth) > absl::Milliseconds(1) + truth / 10) {
    checker_.Violate(absl::StrCat("the pool expects ", absl::FormatDuration(expected), " for what takes ",
                                  absl::FormatDuration(truth)));
  }
}

void SimulatedServer::Drain() {
  draining_ = loop_.Now();
  streams_.Drain();
}

// --------------------------------------------------------------------------------------------------------------- fakes

void SimulatedServer::Tokenize(std::string_view text) {
  checker_.Tokenize(text);
  if (options_.tokenization > absl::ZeroDuration() && !text.empty()) {
    loop_.RunUntil(loop_.Now() + static_cast<int64_t>(text.size()) * options_.tokenization);
  }
  if (options_.failing && random_.OneIn(60)) throw std::bad_alloc();
}

absl::StatusOr<VectorBlock> SimulatedServer::Encode(int model, const PackedBatch& batch,
                                                    absl::FunctionRef<bool()> is_cancelled) {
  constexpr int kLayers = 4;
  if (is_cancelled()) checker_.Violate("an encoder was given a cancelled batch");
  const SimulatedBatch running = checker_.BeginBatch(model, batch);
  absl::Duration time = kBatchTime + kTokenTime * static_cast<int64_t>(batch.tokens.size());
  const bool stalls = options_.failing && random_.OneIn(100);
  if (stalls) time += random_.UpTo(absl::Seconds(80));
  bool cancelled = false;
  for (int layer = 0; layer < kLayers && !cancelled; ++layer) {
    loop_.RunUntil(loop_.Now() + time / kLayers);
    cancelled = is_cancelled();
    checker_.CheckCancelled(running, cancelled);
  }
  if (stalls && !std::exchange(has_stalled_, true)) CheckStall(model, loop_.Now() - running.began);
  checker_.EndBatch(running);
  ++batches_;
  if (cancelled) return EncoderCancelled();
  if (running.poisoned) return EncoderFailed("simulated");
  float broken = 0;
  if (options_.failing) {
    if (random_.OneIn(40)) return EncoderFailed("simulated");
    if (random_.OneIn(40)) return EncoderOutOfMemory("simulated");
    if (random_.OneIn(80)) throw std::bad_alloc();
    if (random_.OneIn(80)) broken = std::numeric_limits<float>::quiet_NaN();
  }
  VectorBlock block{.rows = static_cast<int>(batch.spans.size()), .width = 4};
  for (const Range span : batch.spans) {
    float sum = broken;
    for (int32_t i = span.start; i < span.end; ++i) sum += static_cast<float>(batch.tokens[static_cast<size_t>(i)]);
    block.values.insert(block.values.end(), {sum, static_cast<float>(span.size()), 0, 1});
  }
  return block;
}

// ------------------------------------------------------------------------------------------------------------- threads

bool SimulatedServer::StepPool() {
  ++tokenizing_;
  checker_.BeginTask();
  const bool stepped = pool_.Step();
  checker_.EndTask();
  --tokenizing_;
  return stepped;
}

bool SimulatedServer::Step() {
  if (tokenizing_ < options_.tokenizing && StepPool()) return true;
  if (const absl::Time next = pool_.next_delayed(); next != absl::InfiniteFuture() && next != wake_) {
    loop_.At(wake_ = next, [] {});
  }
  if (scheduler_.Step()) return true;
  CheckQuiet();
  return false;
}

// -------------------------------------------------------------------------------------------------------------- checks

void SimulatedServer::CheckIdle() {
  for (int i = 0; i < options_.models; ++i) {
    if (model(i).lane().WaitIdle(absl::ZeroDuration())) checker_.CheckIdle(i);
  }
}

void SimulatedServer::CheckQuiet() {
  if (quiets_++ % 32 == 0) CheckIdle();
  for (int i = 0; i < options_.models; ++i) checker_.CheckQuiet(i, model(i).lane().queue_state());
  if (tokenizing_ < options_.tokenizing) checker_.CheckNoTextWaits();
  CheckLedger();
  const absl::Duration wait = admission_.expected_wait();
  if (wait < absl::ZeroDuration()) checker_.Violate("the expected wait is negative");
  if (open_ == 0 && wait != absl::ZeroDuration()) checker_.Violate("a wait is expected when no call is open");
}

// Compares the ledger with what callers see: open calls, requests and sequences in progress, and answers not taken.
void SimulatedServer::CheckLedger() {
  const auto held = ledger_.held();
  std::erase_if(live_streams_, [](const auto& stream) { return stream.expired(); });
  const auto streams = static_cast<int64_t>(live_streams_.size());
  if (held.at("calls") != (calls_held_ + streams) * Ledger::kCallBytes) {
    checker_.Violate("the ledger does not hold each open call once");
  }
  constexpr int64_t kMessage = 64;  // The least memory of a request in addition to its bytes.
  int64_t requests = 0, plans = 0;
  for (const std::shared_ptr<Call>& call : checker_.open()) {
    if (call->streamed) continue;  // The call may already be answered, while its answer waits to be written.
    requests += call->request_bytes + kMessage;
    if (!call->queued) continue;
    for (const std::unique_ptr<Text>& text : call->texts) {
      for (const int64_t tokens : text->sequences) plans += tokens * static_cast<int64_t>(sizeof(int32_t));
    }
  }
  // A parsed message takes more memory than its bytes, within bounds.
  const int64_t most_requests = open_ * (20 << 10) + 20 * open_request_bytes_;
  if (held.at("requests") < requests) checker_.Violate("the ledger holds less than the open calls' requests");
  if (streams == 0 && held.at("requests") > most_requests) checker_.Violate("the ledger holds too much for requests");
  if (held.at("plans") < plans) checker_.Violate("the ledger holds less than the sequences that wait and run");
  // A single call may exceed the limit.
  if (calls_held_ + streams > 1 && ledger_.bytes() > options_.max_pending_bytes + kMostCorrected) {
    checker_.Violate("the ledger holds more than its limit");
  }
  if (held.at("answers") < answer_bytes_held_) checker_.Violate("the ledger holds less than answers not taken");
  if (open_ != 0 || streams != 0) return;
  if (held.at("requests") + held.at("plans") != 0) checker_.Violate("the ledger holds requests without open calls");
  if (held.at("answers") != answer_bytes_held_) checker_.Violate("the ledger holds more than answers not taken");
}

// Checks that a batch that runs much longer than any should is reported as hanging.
void SimulatedServer::CheckStall(int model, absl::Duration ran) {
  const absl::Duration hanging = this->model(model).lane().queue_state().hanging;
  const absl::Duration token = std::max(kTokenTime, options_.work_expected / 100);
  const absl::Duration most = 4 * options_.workers * token * options_.max_batch_tokens + absl::Seconds(3);
  if (ran > 3 * most && hanging == absl::ZeroDuration()) checker_.Violate("a hanging batch is not reported");
}

void SimulatedServer::CheckEnd() {
  // The server has measured its batches, so it must know how long its work takes.
  const absl::Duration work = model(0).lane().WorkOf(1000), truth = 1000 * kTokenTime;
  const bool measured = options_.models == 1 && options_.workers == 1 && batches_ >= 30 && options_.exact() &&
                        options_.tokenization == absl::ZeroDuration();
  if (measured && (work < truth / 2 || work > truth * 2)) {
    checker_.Violate(
        absl::StrCat("the server expects ", absl::FormatDuration(work), " for work of ", absl::FormatDuration(truth)));
  }
  if (open_ != 0) checker_.Violate(absl::StrCat(open_, " calls were forgotten"));
  if (ledger_.bytes() != 0) checker_.Violate(absl::StrCat("the ledger holds ", ledger_.bytes(), " bytes at the end"));
  if (metrics_.in_flight() != 0) {
    checker_.Violate(absl::StrCat(metrics_.in_flight(), " calls are in flight at the end"));
  }
  if (pool_.waiting() != 0) checker_.Violate("a task waits at the end");
  for (int i = 0; i < options_.models; ++i) {
    const QueueState queue = model(i).lane().queue_state();
    if (queue.jobs != 0 || queue.tokens != 0 || queue.running_batches != 0) {
      checker_.Violate("the queue is not empty at the end");
    }
    if (!model(i).lane().WaitIdle(absl::ZeroDuration())) checker_.Violate("a lane is not idle at the end");
    const ResourceRequest large{.client = "last", .tokens = 1 << 20, .work = absl::Hours(1)};
    if (!admission_.Admit(model(i).budget(), large).ok()) checker_.Violate("an empty queue refuses a call");
  }
  if (!ledger_.BeginMessage("last")->Hold(Memory::kRequests, 2 * options_.max_pending_bytes).ok()) {
    checker_.Violate("an empty ledger refuses a call");
  }
}

}  // namespace longembed
