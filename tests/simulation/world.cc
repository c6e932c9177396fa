#include "tests/simulation/world.h"

#include <algorithm>
#include <map>
#include <memory>
#include <new>
#include <random>
#include <set>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "longembed/v1/embedding.pb.h"
#include "model/errors/errors.h"
#include "server/api/longembed/embed_stream.h"
#include "server/api/longembed/operations.h"
#include "server/errors/errors.h"
#include "server/rpc/stream_host.h"
#include "server/rpc/unary_host.h"
#include "server/rpc/wire.h"
#include "server/telemetry/log.h"
#include "tests/simulation/event_loop.h"
#include "tests/testing/fake_tokenizer.h"

namespace longembed {
namespace {

constexpr absl::Duration kTooLong = absl::Hours(2);  // After that whoever still waits was forgotten.

class World;

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  int64_t Between(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(engine_); }
  bool OneIn(int64_t n) { return Between(1, n) == 1; }
  absl::Duration UpTo(absl::Duration most) { return absl::Microseconds(Between(0, absl::ToInt64Microseconds(most))); }
  template <typename T>
  const T& Of(const std::vector<T>& values) {
    return values[static_cast<size_t>(Between(0, static_cast<int64_t>(values.size()) - 1))];
  }

 private:
  std::mt19937_64 engine_;
};

// What one caller wants and what becomes of it.
struct Wish {
  std::string text;
  bool over = false;      // Nobody waits for it.
  bool too_late = false;  // It was sent when the server had begun to drain.
  int finished = 0;
};

// Takes virtual time, during which everything else goes on; fails now and then.
class SimulatedEncoder final : public Encoder {
 public:
  explicit SimulatedEncoder(World& world) : world_(world) {}
  absl::StatusOr<VectorBlock> Encode(const PackedBatch& batch, Team::Leader& leader,
                                     absl::FunctionRef<bool()> nobody_waits) override;
  int hidden_size() const override { return 4; }
  std::string device() const override { return "simulated"; }
  std::string engine() const override { return "simulated"; }

 private:
  World& world_;
};

// Takes virtual time, too, and memory that is not there.
class SimulatedTokenizer final : public Tokenizer {
 public:
  explicit SimulatedTokenizer(World& world) : world_(world) {}
  absl::StatusOr<TokenizedText> Tokenize(std::string_view text, int64_t enough) const override;
  absl::StatusOr<std::string> TokenText(int32_t id) const override { return fake_.TokenText(id); }
  absl::StatusOr<std::string> Decode(std::span<const uint32_t> ids, bool skip) const override {
    return fake_.Decode(ids, skip);
  }
  int32_t vocabulary_size() const override { return fake_.vocabulary_size(); }

 private:
  World& world_;
  const FakeTokenizer fake_;
};

class World {
 public:
  explicit World(uint64_t seed);
  std::vector<std::string> Run();

  EventLoop& loop() { return loop_; }
  Random& random() { return random_; }
  void Violate(const std::string& what) { violations_.insert(what); }
  ServedModel& model() { return *models_.models()[0]; }
  bool failing() const { return failing_; }
  void CountOpen(int more) { open_ += more; }
  void ExpectAnswer(const Wish& wish, const v1::EmbedResult& result);
  void ExpectRefusal(const absl::Status& status);
  const HostContext& host() const { return host_; }
  const LongembedContext& api() const { return *api_; }
  // Of a call that is about to be made.
  Arrival MakeArrival(absl::Duration time_left);
  std::shared_ptr<Wish> MakeWish();
  // Whose text begins with these tokens; null where it is the rest of one.
  std::shared_ptr<Wish> WishOf(std::span<const int32_t> tokens) const;
  bool draining() const { return draining_; }

 private:
  static constexpr int kDigits = 3, kBase = 20, kDigit = 30;

  std::string MakeText();
  void MakeUnary();
  void MakeStream();
  bool Step();
  void ExpectRest();

  Random random_;
  EventLoop loop_;
  std::set<std::string> violations_;
  const bool failing_;  // Whether encoder and tokenizer fail now and then.
  LimitsConfig limits_;
  Admission admission_;
  Ledger ledger_;
  Scheduler scheduler_;
  Metrics metrics_{{}};
  ModelRegistry models_;
  Profiles profiles_;
  OpenStreams streams_;
  HostContext host_;
  std::unique_ptr<LongembedContext> api_;
  ApiMethod embed_;
  std::vector<std::shared_ptr<Wish>> wishes_;  // Those with texts.
  bool draining_ = false;
  int open_ = 0;     // Calls that have not been finished.
  absl::Time wake_;  // When the pool is looked after next.
  WorkerPool pool_;
};

// ------------------------------------------------------------------------------------------------------------ callers

// A unary call, which its caller may cancel.
class UnaryCaller : public std::enable_shared_from_this<UnaryCaller> {
 public:
  UnaryCaller(World& world, const ApiMethod& method) : world_(world), method_(method) {}

  void Start() {
    world_.CountOpen(+1);
    Random& random = world_.random();
    const int64_t inputs = random.OneIn(4) ? random.Between(2, 6) : 1;
    v1::EmbedRequest request;
    absl::Duration time_left = absl::InfiniteDuration();
    if (random.OneIn(2)) time_left = random.UpTo(absl::Seconds(4));
    const bool bulk = random.OneIn(4);
    for (int64_t i = 0; i < inputs; ++i) {
      wishes_.push_back(world_.MakeWish());
      request.add_inputs()->set_text(wishes_.back()->text);
    }
    auto& options = *request.mutable_options();
    options.set_normalize(false);
    options.mutable_extension()->mutable_windows()->set_last(v1::Extension::Windows::SHORT);
    if (bulk) options.set_priority(v1::EmbedOptions::BULK);
    auto self = shared_from_this();
    host_ = std::make_unique<UnaryHost>(method_, world_.MakeArrival(time_left), world_.host(),
                                        [this, self](UnaryHost::Outcome outcome) { End(std::move(outcome)); });
    host_->Start(SerializeMessage(request));
    if (ended_) return;
    // As gRPC does: told of the deadline a little late.
    if (time_left != absl::InfiniteDuration()) {
      world_.loop().After(time_left + random.UpTo(absl::Milliseconds(5)), [this, self] { Cancel(); });
    }
    if (random.OneIn(6)) world_.loop().After(random.UpTo(absl::Seconds(3)), [this, self] { Cancel(); });
  }

 private:
  void Cancel() {
    if (ended_) return;
    host_->Cancel();
    for (const std::shared_ptr<Wish>& wish : wishes_) wish->over = true;
  }

  void End(UnaryHost::Outcome outcome) {
    if (std::exchange(ended_, true)) world_.Violate("a call was finished twice");
    world_.CountOpen(-1);
    world_.ExpectRefusal(outcome.status);
    if (outcome.status.ok()) {
      v1::EmbedResponse response;
      if (!ParseMessage(outcome.answer, 1 << 30, response).ok()) world_.Violate("an answer cannot be read");
      if (response.results_size() != static_cast<int>(wishes_.size())) world_.Violate("an answer lacks results");
      for (int i = 0; i < response.results_size(); ++i) world_.ExpectAnswer(*wishes_[i], response.results(i));
    }
    // The client takes its answer after a while; until then it is held.
    world_.loop().After(world_.random().UpTo(absl::Milliseconds(300)),
                        [this, self = shared_from_this()] { host_ = nullptr; });
  }

  World& world_;
  const ApiMethod& method_;
  std::vector<std::shared_ptr<Wish>> wishes_;
  std::unique_ptr<UnaryHost> host_;
  bool ended_ = false;
};

// A stream whose client sends some texts, reads slowly, and may go away.
class StreamCaller : public std::enable_shared_from_this<StreamCaller>, private StreamFront {
 public:
  explicit StreamCaller(World& world) : world_(world) {}

  void Start() {
    world_.CountOpen(+1);
    Random& random = world_.random();
    const int64_t messages = random.Between(0, 30);
    for (int64_t i = 0; i < messages; ++i) wishes_[absl::StrCat(i)] = world_.MakeWish();
    const EmbedStreamParts stream = MakeEmbedStream(world_.api());
    host_ = StreamHost::Make(stream.method, stream.options, world_.MakeArrival(absl::InfiniteDuration()), world_.host(),
                             *this);
    keep_ = shared_from_this();
    host_->Begin();
    if (random.OneIn(5)) world_.loop().After(random.UpTo(absl::Seconds(4)), [this, self = keep_] { GoAway(); });
  }

 private:
  // Sends the next message, or the end.
  void Read() override {
    if (finished_) world_.Violate("a stream was read from after its end");
    const absl::Duration pause = world_.random().OneIn(10) ? world_.random().UpTo(absl::Seconds(2))
                                                           : world_.random().UpTo(absl::Milliseconds(20));
    world_.loop().After(pause, [this, self = keep_] {
      if (over_) return;
      if (gone_ || sent_ == static_cast<int>(wishes_.size())) return host_->OnRead(false, {});
      const std::string id = absl::StrCat(sent_++);
      v1::EmbedStreamRequest message;
      if (id == "0") {
        message.mutable_options()->set_normalize(false);
        message.mutable_options()->mutable_extension()->mutable_windows()->set_last(v1::Extension::Windows::SHORT);
      }
      message.set_id(id);
      wishes_[id]->too_late = world_.draining();
      message.mutable_input()->set_text(wishes_[id]->text);
      host_->OnRead(true, SerializeMessage(message));
    });
  }

  void Write(grpc::ByteBuffer answer) override {
    if (finished_ || writing_) world_.Violate("a stream was written to out of turn");
    writing_ = true;
    v1::EmbedStreamResponse response;
    if (!ParseMessage(answer, 1 << 30, response).ok()) world_.Violate("an answer cannot be read");
    Wish& wish = *wishes_[response.id()];
    if (wish.too_late) world_.Violate("a message was taken that came while the server drained");
    if (++wish.finished > 1) world_.Violate("a message was answered twice");
    if (!response.result().has_error()) world_.ExpectAnswer(wish, response.result());
    const absl::Duration pause = world_.random().OneIn(10) ? world_.random().UpTo(absl::Seconds(3))
                                                           : world_.random().UpTo(absl::Milliseconds(5));
    world_.loop().After(pause, [this, self = keep_] {
      writing_ = false;
      if (!over_) host_->OnWritten(!gone_);
      Leave();
    });
  }

  void Finish(const absl::Status& status) override {
    if (std::exchange(finished_, true)) world_.Violate("a stream was finished twice");
    world_.CountOpen(-1);
    if (writing_) world_.Violate("a stream was finished during a write");
    world_.ExpectRefusal(status);
    const bool all = std::ranges::all_of(wishes_, [](const auto& wish) { return wish.second->finished == 1; });
    if (status.ok() && !gone_ && !all) world_.Violate("a stream ended well without all answers");
    if (!gone_) {
      for (int i = 0; i < sent_; ++i) {
        if (ErrorReason(status) == "DRAINING" && !world_.failing() && wishes_[absl::StrCat(i)]->finished == 0 &&
            i + 1 < sent_) {
          world_.Violate("what a stream had read was not answered before a drain ended it");
        }
      }
    }
    for (const auto& [id, wish] : wishes_) wish->over = true;
    world_.loop().After(absl::Milliseconds(1), [this, self = keep_] { Leave(); });
  }

  void GoAway() {
    if (finished_) return;
    gone_ = true;
    host_->OnCancelled();
    for (const auto& [id, wish] : wishes_) wish->over = true;
  }

  // As gRPC's OnDone.
  void Leave() {
    if (!finished_ || writing_ || over_) return;
    over_ = true;
    host_->OnOver();
    host_ = nullptr;
    keep_ = nullptr;
  }

  World& world_;
  std::map<std::string, std::shared_ptr<Wish>> wishes_;  // By id.
  std::shared_ptr<StreamHost> host_;
  std::shared_ptr<StreamCaller> keep_;  // As long as the transport has it.
  int sent_ = 0;
  bool gone_ = false, writing_ = false, finished_ = false, over_ = false;
};

// -------------------------------------------------------------------------------------------------------------- fakes

absl::StatusOr<TokenizedText> SimulatedTokenizer::Tokenize(std::string_view text, int64_t enough) const {
  if (world_.failing() && world_.random().OneIn(60)) throw std::bad_alloc();
  return fake_.Tokenize(text, enough);
}

absl::StatusOr<VectorBlock> SimulatedEncoder::Encode(const PackedBatch& batch, Team::Leader&,
                                                     absl::FunctionRef<bool()> nobody_waits) {
  if (nobody_waits()) world_.Violate("the encoder was given a batch that nobody waits for");
  for (const int32_t begin : std::span(batch.sequence_offsets).first(batch.sequence_offsets.size() - 1)) {
    const std::shared_ptr<Wish> wish = world_.WishOf(std::span(batch.tokens).subspan(static_cast<size_t>(begin) + 1));
    // A batch that failed runs again in parts, whoever has gone meanwhile.
    if (!world_.failing() && wish != nullptr && wish->over) {
      world_.Violate("the encoder was given a text that nobody waits for");
    }
  }
  Random& random = world_.random();
  absl::Duration time = absl::Microseconds(500) + absl::Milliseconds(2) * static_cast<int64_t>(batch.tokens.size());
  if (world_.failing() && random.OneIn(100)) time += random.UpTo(absl::Seconds(8));
  for (int layer = 0; layer < 4; ++layer) {
    world_.loop().RunUntil(world_.loop().Now() + time / 4);
    if (nobody_waits()) return EncoderCancelled();
  }
  if (world_.failing() && random.OneIn(40)) return EncoderFailed("simulated");
  if (world_.failing() && random.OneIn(40)) return EncoderOutOfMemory("simulated");
  if (world_.failing() && random.OneIn(80)) throw std::bad_alloc();
  VectorBlock block{.rows = static_cast<int>(batch.spans.size()), .width = 4};
  for (const Range span : batch.spans) {
    float sum = 0;
    for (int32_t i = span.start; i < span.end; ++i) sum += static_cast<float>(batch.tokens[static_cast<size_t>(i)]);
    block.values.insert(block.values.end(), {sum, static_cast<float>(span.size()), 0, 1});
  }
  return block;
}

// -------------------------------------------------------------------------------------------------------------- world

World::World(uint64_t seed)
    : random_(seed),
      failing_(random_.OneIn(2)),
      admission_({.max_wait = absl::Seconds(random_.Between(1, 10)), .max_bulk_wait = absl::Seconds(20)}, loop_),
      ledger_(random_.OneIn(3) ? 200'000 : 100 << 20),
      scheduler_({.workers = 1, .threads = false}, loop_),
      host_{.clock = loop_, .metrics = metrics_, .ledger = ledger_, .max_request_bytes = 1 << 20, .streams = &streams_},
      pool_(0, loop_, absl::Seconds(10)) {
  limits_.max_request_bytes = 1 << 20;
  ServedModelOptions options{.lane = {.batch = {.max_tokens = 64}}, .max_queued_tokens = random_.Between(100, 5000)};
  Model model{FakeManifest(), std::make_unique<SimulatedTokenizer>(*this)};
  auto served = std::make_unique<ServedModel>("fake", std::make_unique<const Model>(std::move(model)),
                                              std::make_unique<SimulatedEncoder>(*this), Device{scheduler_, admission_},
                                              options, metrics_);
  served->lane().Expect(100, absl::Milliseconds(200));
  if (!models_.Add(std::move(served)).ok()) Violate("the model cannot be added");
  api_ = std::make_unique<LongembedContext>(
      LongembedContext{{.models = models_, .pool = pool_, .clock = loop_, .limits = limits_}, profiles_});
  embed_ = EmbedMethod(*api_);
  loop_.set_then([this] { return Step(); });
}

Arrival World::MakeArrival(absl::Duration time_left) {
  return {.address = absl::StrCat("ipv4:10.0.0.", random_.Between(1, 4), ":", random_.Between(1000, 9999)),
          .time_left = time_left};
}

// Its first words are its number, in digits of a length that no other word has.
std::shared_ptr<Wish> World::MakeWish() {
  auto wish = std::make_shared<Wish>();
  wish->text = MakeText();
  if (wish->text.empty()) return wish;
  std::string number;
  size_t rest = wishes_.size();
  for (int digit = 0; digit < kDigits; ++digit, rest /= kBase) {
    absl::StrAppend(&number, std::string(kDigit + rest % kBase, 'n'), " ");
  }
  wish->text = number + wish->text;
  wishes_.push_back(wish);
  return wish;
}

std::shared_ptr<Wish> World::WishOf(std::span<const int32_t> tokens) const {
  constexpr int32_t kZero = 10 + kDigit;  // As FakeTokenizer numbers words.
  size_t number = 0, unit = 1;
  for (int digit = 0; digit < kDigits; ++digit, unit *= kBase) {
    const int32_t value = tokens[static_cast<size_t>(digit)] - kZero;
    if (value < 0 || value >= kBase) return nullptr;
    number += unit * static_cast<size_t>(value);
  }
  return wishes_.at(number);
}

std::string World::MakeText() {
  const int64_t words = random_.OneIn(8) ? random_.Between(20, 120) : random_.Between(0, 12);
  std::string text;
  for (int64_t i = 0; i < words; ++i)
    absl::StrAppend(&text, std::string(static_cast<size_t>(random_.Between(1, 9)), 'a'), " ");
  return text;
}

bool World::Step() {
  if (const auto held = ledger_.held(); open_ == 0 && held.at("requests") + held.at("plans") != 0) {
    Violate("requests or plans are held when no call is open");
  }
  // One thing at a time: within the encoder others arrive, but there is one worker.
  if (pool_.Step()) return true;
  if (const absl::Time next = pool_.next_delayed(); next != absl::InfiniteFuture() && next != wake_) {
    loop_.At(wake_ = next, [] {});
  }
  return scheduler_.Step();
}

void World::ExpectRefusal(const absl::Status& status) {
  if (absl::IsResourceExhausted(status) && !RetryDelay(status).has_value() && ErrorReason(status) != "OUT_OF_MEMORY") {
    Violate(absl::StrCat("a refusal has no retry delay: ", status.message()));
  }
  if (absl::IsUnknown(status)) Violate("an error has no words");
}

// By hand: the mean over windows of 16, two of which are special tokens, of the sums of their tokens.
void World::ExpectAnswer(const Wish& wish, const v1::EmbedResult& result) {
  std::vector<double> ids;
  size_t length = 0;
  for (const char c : wish.text + " ") {
    if (c != ' ') {
      ++length;
    } else if (length > 0) {
      ids.push_back(10.0 + static_cast<double>(std::exchange(length, 0)));
    }
  }
  if (ids.empty()) return Violate("a text without tokens was embedded");
  double sum = 0;
  int windows = 0;
  for (size_t begin = 0; begin < ids.size(); begin += 14, ++windows) {
    sum += 3;
    for (size_t i = begin; i < std::min(begin + 14, ids.size()); ++i) sum += ids[i];
  }
  if (result.embeddings_size() != 1 || std::abs(result.embeddings(0).values(0) - sum / windows) > 1e-3 * sum) {
    Violate("an answer is not that of its text");
  }
}

void World::MakeUnary() {
  auto caller = std::make_shared<UnaryCaller>(*this, embed_);
  caller->Start();
}

void World::MakeStream() {
  auto caller = std::make_shared<StreamCaller>(*this);
  caller->Start();
}

void World::ExpectRest() {
  if (open_ != 0) Violate(absl::StrCat(open_, " calls were forgotten"));
  if (ledger_.bytes() != 0) Violate(absl::StrCat("the ledger holds ", ledger_.bytes(), " bytes at the end"));
  if (metrics_.in_flight() != 0) Violate(absl::StrCat(metrics_.in_flight(), " calls are in flight at the end"));
  const QueueState queue = model().lane().queue_state();
  if (queue.jobs != 0 || queue.tokens != 0 || queue.running_batches != 0) Violate("the queue is not empty at the end");
  if (admission_.expected_wait() != absl::ZeroDuration()) Violate("admission expects a wait at the end");
  if (!admission_.Admit(model().budget(), {.client = "last", .tokens = 1 << 20, .work = absl::Hours(1)}).ok()) {
    Violate("an empty queue refuses a call");
  }
  if (pool_.waiting() != 0) Violate("a task waits at the end");
}

std::vector<std::string> World::Run() {
  const absl::Duration length = absl::Seconds(random_.Between(2, 12));
  for (int64_t calls = random_.Between(1, 120); calls > 0; --calls) {
    loop_.After(random_.UpTo(length), [this] { random_.OneIn(8) ? MakeStream() : MakeUnary(); });
  }
  // Every stream ends at last: at a drain, or because its client has said everything.
  loop_.After(random_.OneIn(2) ? random_.UpTo(length) : length + absl::Minutes(10), [this] {
    draining_ = true;
    streams_.Drain();
  });
  const absl::Time end = loop_.Now() + kTooLong;
  while (loop_.Now() < end && loop_.Next()) continue;
  ExpectRest();
  return {violations_.begin(), violations_.end()};
}

}  // namespace

std::vector<std::string> Simulate(uint64_t seed) {
  SetLogLevel(LogLevel::kError);
  try {
    return World(seed).Run();
  } catch (const std::exception& error) {
    return {absl::StrCat("an exception got out: ", error.what())};
  }
}

}  // namespace longembed
