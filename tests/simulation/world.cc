#include "tests/simulation/world.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/errors/errors.h"
#include "server/telemetry/log.h"
#include "tests/simulation/callers.h"
#include "tests/simulation/server.h"

namespace longembed {
namespace {

constexpr absl::Duration kTooLong = absl::Hours(2);  // A call that is open for longer was forgotten.

void RunToTheEnd(SimulatedServer& server) {
  const absl::Time end = server.loop().Now() + kTooLong;
  while (server.loop().Now() < end && server.loop().Next()) continue;
  server.CheckEnd();
}

Words RandomWords(Random& random, int64_t least, int64_t most) {
  Words words(static_cast<size_t>(random.Between(least, most)));
  for (int& word : words) word = static_cast<int>(random.Between(1, 9));
  return words;
}

// ------------------------------------------------------------------------------------------------------------- general

// Unary calls, floods of texts to tokenize, and streams. A few clients send them at random times.
class GeneralWorld {
 public:
  explicit GeneralWorld(uint64_t seed) : random_(~seed), server_(seed, Options()) {}

  std::set<std::string> Run() {
    const absl::Duration length = absl::Seconds(random_.Between(2, 12));
    for (int64_t calls = random_.Between(1, 120); calls > 0; --calls) {
      server_.loop().After(random_.UpTo(length), [this] {
        const bool stream = server_.options().streams && random_.OneIn(8);
        stream ? MakeStream() : MakeUnary(random_.OneIn(8));
      });
    }
    for (int floods = random_.OneIn(3) ? 2 : 0; floods > 0; --floods) {
      server_.loop().After(random_.UpTo(length), [this] { MakeFlood(); });
    }
    if (server_.options().faulty() && random_.OneIn(3)) {
      server_.loop().After(random_.UpTo(length), [this] { GiveUp(); });
    }
    // Every stream ends in the end, because of the drain or because its client has sent everything.
    server_.loop().After(random_.OneIn(2) ? random_.UpTo(length) : length + absl::Minutes(10),
                         [this] { server_.Drain(); });
    RunToTheEnd(server_);
    return server_.checker().violations();
  }

 private:
  SimulationOptions Options() {
    // With `alone` there is a single worker.
    const bool failing = random_.OneIn(3), alone = !random_.OneIn(3);
    return {.failing = failing,
            .poisoned = !failing && random_.OneIn(6),
            .streams = !random_.OneIn(4),
            .long_texts = random_.OneIn(6),
            .models = random_.OneIn(alone ? 4 : 2) ? 2 : 1,
            .workers = alone ? 1 : static_cast<int>(random_.Between(2, 4)),
            .tokenizing = static_cast<int>(random_.Between(1, 2)),
            .max_batch_tokens = random_.Of<int64_t>({20, 64, 64, 200}),
            .max_batch_sequences = random_.OneIn(3) ? 3u : 512u,
            .oversized = random_.OneIn(alone ? 4 : 2) ? 12 : 1 << 20,
            .max_pending_bytes = random_.OneIn(3) ? random_.Of<int64_t>({200'000, 600'000}) : 100 << 20,
            .max_queued_tokens = random_.Between(100, 5000),
            .max_wait = absl::Seconds(random_.Between(1, 10)),
            .max_tokenizer_wait = random_.OneIn(2) ? absl::Milliseconds(50) : absl::Seconds(10),
            .tokenization = random_.OneIn(2) ? absl::Microseconds(10) : absl::ZeroDuration(),
            .work_expected = random_.Of<absl::Duration>(
                {absl::Milliseconds(20), absl::Milliseconds(200), absl::Milliseconds(200), absl::Seconds(1)}),
            .max_stream_age = random_.OneIn(4) ? absl::Seconds(2) : absl::InfiniteDuration()};
  }

  Words MakeWords() { return random_.OneIn(8) ? RandomWords(random_, 20, 120) : RandomWords(random_, 0, 12); }

  UnarySpec MakeSpec(bool tokenize) {
    UnarySpec spec{.tokenize = tokenize,
                   .client = absl::StrCat("10.0.0.", random_.Between(1, 4)),
                   .model = static_cast<int>(random_.Between(0, server_.options().models - 1)),
                   .bulk = random_.OneIn(4),
                   .partial_results = random_.OneIn(4)};
    for (int64_t texts = random_.OneIn(4) ? random_.Between(2, 6) : 1; texts > 0; --texts) {
      spec.texts.push_back(MakeWords());
    }
    spec.poison = server_.options().poisoned && random_.OneIn(15);
    if (server_.options().long_texts && random_.OneIn(10)) spec.blanks = 70'000;
    return spec;
  }

  void MakeUnary(bool tokenize) {
    UnarySpec spec = MakeSpec(tokenize);
    if (random_.OneIn(2)) spec.time_left = random_.UpTo(absl::Seconds(4));
    if (random_.OneIn(6)) spec.cancel_after = random_.UpTo(absl::Seconds(3));
    CallUnary(server_, std::move(spec));
  }

  // Makes many calls at once, from one client and often a second one.
  void MakeFlood() {
    for (int i = 0; i < 40; ++i) {
      UnarySpec spec = MakeSpec(random_.OneIn(2));
      spec.client = random_.OneIn(4) ? "10.0.0.2" : "10.0.0.1";
      CallUnary(server_, std::move(spec));
    }
  }

  void MakeStream() {
    StreamSpec spec{.tei = random_.OneIn(2), .client = absl::StrCat("10.0.1.", random_.Between(1, 2))};
    spec.model = spec.tei ? 0 : static_cast<int>(random_.Between(0, server_.options().models - 1));
    spec.bulk = !spec.tei && random_.OneIn(3);
    for (int64_t messages = random_.Between(0, 30); messages > 0; --messages) spec.texts.push_back(MakeWords());
    // An empty text ends a TEI stream, so half of the streams have none.
    if (spec.tei && random_.OneIn(2)) std::erase_if(spec.texts, [](const Words& words) { return words.empty(); });
    spec.in_parts = !spec.tei && random_.OneIn(3);
    spec.unfinished = spec.in_parts && !spec.texts.empty() && random_.OneIn(3);
    spec.unpaced = random_.OneIn(3);
    if (random_.OneIn(2)) spec.max_messages = static_cast<size_t>(random_.Between(1, 6));
    if (random_.OneIn(3)) spec.max_bytes = random_.Between(100, 2000);
    if (random_.OneIn(5)) spec.go_away_after = random_.UpTo(absl::Seconds(4));
    CallStream(server_, std::move(spec));
  }

  // Gives the model up for a second, as the server does when its encoder hangs.
  void GiveUp() {
    server_.model(0).GiveUp(true);
    for (const std::shared_ptr<Call>& call : server_.checker().open()) {
      if (call->queued && call->model == 0 && !call->streamed)
        server_.checker().Violate("a call waits for a model that was given up");
    }
    server_.loop().After(absl::Seconds(1), [this] { server_.model(0).GiveUp(false); });
  }

  Random random_;
  SimulatedServer server_;
};

// --------------------------------------------------------------------------------------------------------------- crowd

// A heavy client requests several times what the server can do. A light client has one short call at a time.
class CrowdWorld {
 public:
  explicit CrowdWorld(uint64_t seed) : random_(~seed), server_(seed, Options()) {}

  std::set<std::string> Run() {
    MakeHeavy();
    if (random_.OneIn(2)) server_.loop().After(absl::Milliseconds(500), [this] { MakePast(); });
    const absl::Time end = server_.loop().Now() + kLength;
    server_.loop().After(absl::Seconds(1) + random_.UpTo(absl::Seconds(1)), [this, end] { MakeLight(end); });
    server_.loop().After(kLength, [this] { server_.Drain(); });
    RunToTheEnd(server_);
    return server_.checker().violations();
  }

 private:
  static constexpr absl::Duration kLength = absl::Seconds(6);
  // The longest wait of the light client's calls: the batch that runs when the call arrives, its own batch, and two
  // batches of the heavy client that are due at the same time. In addition, the heavy client may catch up on the work
  // that the light client has got.
  static constexpr absl::Duration kMostWait = absl::Milliseconds(4 * 128 + 2), kToken = absl::Milliseconds(2);

  SimulationOptions Options() {
    return {.max_pending_bytes = random_.OneIn(2) ? 1 << 20 : 100 << 20,
            .max_queued_tokens = random_.Between(1000, 5000),
            .max_wait = absl::Seconds(random_.Between(3, 10))};
  }

  void MakeHeavy() {
    const int64_t kind = random_.Between(0, 3);
    if (kind == 3) return MakeHeavyStream();
    for (int i = 0; i < 100; ++i) {
      UnarySpec spec{.client = "10.0.0.1", .bulk = kind == 2};
      for (int64_t texts = random_.Between(1, 4); texts > 0; --texts) {
        spec.texts.push_back(kind == 1 ? RandomWords(random_, 100, 200) : RandomWords(random_, 5, 11));
      }
      server_.loop().After(random_.UpTo(kLength / 2), [this, spec] { CallUnary(server_, spec); });
    }
  }

  void MakeHeavyStream() {
    StreamSpec spec{.client = "10.0.0.1", .unpaced = true, .max_messages = 256};
    for (int i = 0; i < 200; ++i) spec.texts.push_back(RandomWords(random_, 5, 40));
    CallStream(server_, std::move(spec));
  }

  // Creates cancelled work of the light client, which must not count against it. The client always has a call open, so
  // that the server does not forget it.
  void MakePast() {
    CallUnary(server_, {.client = "10.0.0.2", .bulk = true, .texts = {RandomWords(random_, 1, 5)}});
    for (int i = 0; i < 20; ++i) {
      UnarySpec spec{.client = "10.0.0.2", .cancel_after = absl::Milliseconds(50)};
      spec.texts = {RandomWords(random_, 100, 100), RandomWords(random_, 100, 100)};
      CallUnary(server_, std::move(spec));
    }
  }

  void MakeLight(absl::Time end) {
    if (server_.loop().Now() > end) return;
    UnarySpec spec{.client = "10.0.0.2", .texts = {RandomWords(random_, 1, 10)}};
    const absl::Duration most = kMostWait + light_work_;
    // Includes the words that encode the text's number, and the special tokens.
    light_work_ += kToken * static_cast<int64_t>(spec.texts[0].size() + 5);
    spec.then = [this, end, most](const absl::Status& status, absl::Duration took) {
      if (!status.ok()) server_.checker().Violate(absl::StrCat("a light client is refused: ", status.message()));
      if (took > most) server_.checker().Violate(absl::StrCat("a light client waits for ", absl::FormatDuration(took)));
      server_.loop().After(random_.UpTo(absl::Milliseconds(400)), [this, end] { MakeLight(end); });
    };
    CallUnary(server_, std::move(spec));
  }

  absl::Duration light_work_;  // Work of the light client's calls so far.
  Random random_;
  SimulatedServer server_;
};

// -------------------------------------------------------------------------------------------------------------- shares

// Clients that always have work waiting. Their calls have different sizes, and few or many tokens per byte.
class SharesWorld {
 public:
  explicit SharesWorld(uint64_t seed)
      : random_(~seed), server_(seed, {}), clients_(static_cast<size_t>(random_.Between(2, 3))) {}

  std::set<std::string> Run() {
    for (size_t i = 0; i < clients_.size(); ++i) {
      clients_[i] = {.texts = random_.Between(1, 4), .letters = random_.OneIn(2) ? 1 : 9};
      for (int call = 0; call < 12; ++call) {
        server_.loop().After(random_.UpTo(absl::Milliseconds(100)), [this, i] { Call(i); });
      }
    }
    RunToTheEnd(server_);
    const auto less = [](const Client& one, const Client& other) { return one.served < other.served; };
    const auto [least, most] = std::ranges::minmax_element(clients_, less);
    if (static_cast<double>(least->served) < kEqual * static_cast<double>(most->served)) {
      server_.checker().Violate(absl::StrCat("a client gets ", least->served, " tokens and another ", most->served));
    }
    return server_.checker().violations();
  }

 private:
  static constexpr absl::Duration kLength = absl::Seconds(8), kBegin = absl::Seconds(2);
  static constexpr double kEqual = 0.85;  // Less than 1, since work in progress at both ends of the interval counts.

  struct Client {
    int64_t texts = 1;
    int letters = 1;
    int64_t served = 0;  // In tokens.
  };

  void Call(size_t index) {
    if (server_.loop().Now() > began_ + kLength) return;
    Client& client = clients_[index];
    UnarySpec spec{.client = absl::StrCat("10.0.0.", index + 1)};
    for (int64_t i = 0; i < client.texts; ++i) spec.texts.push_back(Words(11, client.letters));
    spec.then = [this, index, &client](const absl::Status& status, absl::Duration) {
      const absl::Time now = server_.loop().Now();
      if (status.ok() && now > began_ + kBegin && now < began_ + kLength) client.served += 16 * client.texts;
      server_.loop().After(RetryDelay(status).value_or(absl::ZeroDuration()), [this, index] { Call(index); });
    };
    CallUnary(server_, std::move(spec));
  }

  Random random_;
  SimulatedServer server_;
  const absl::Time began_ = server_.loop().Now();
  std::vector<Client> clients_;
};

// ----------------------------------------------------------------------------------------------------------- tokenizer

// Clients request more tokenization than one thread can do. Accepted texts must wait at most as long as the limit that
// the server was given.
class TokenizerWorld {
 public:
  explicit TokenizerWorld(uint64_t seed)
      : random_(~seed),
        server_(seed, {.max_tokenizer_wait = kMaxWait, .tokenization = kByte}),
        clients_(random_.Between(1, 3)) {}

  std::set<std::string> Run() {
    for (int i = 0; i < 100; ++i) {
      server_.loop().After(random_.UpTo(absl::Milliseconds(400)), [this] { MakeCall(); });
    }
    RunToTheEnd(server_);
    if (answered_ < 20) server_.checker().Violate("the tokenizer refuses what it could do");
    return server_.checker().violations();
  }

 private:
  static constexpr absl::Duration kMaxWait = absl::Milliseconds(50), kByte = absl::Microseconds(10);

  void MakeCall() {
    UnarySpec spec{.tokenize = true, .client = absl::StrCat("10.0.0.", random_.Between(1, clients_))};
    spec.texts.push_back(RandomWords(random_, 20, 120));
    spec.then = [this](const absl::Status& status, absl::Duration took) {
      if (!status.ok()) return;
      ++answered_;
      // Allows for the running text and the call's own text, in addition to the wait. Each other client, even one that
      // comes later, may delay the call by as much.
      constexpr absl::Duration kLongest = absl::Milliseconds(60);
      if (took > clients_ * (kMaxWait + kLongest)) {
        server_.checker().Violate(absl::StrCat("a text waits for ", absl::FormatDuration(took), " to be tokenized"));
      }
    };
    CallUnary(server_, std::move(spec));
  }

  Random random_;
  SimulatedServer server_;
  const int64_t clients_;
  int answered_ = 0;
};

// ----------------------------------------------------------------------------------------------------------- deadlines

// Callers whose deadlines are a multiple of the time that a call alone takes. They call again as soon as they may.
class DeadlineWorld {
 public:
  explicit DeadlineWorld(uint64_t seed)
      : random_(~seed),
        server_(seed,
                {.max_wait = random_.Of<absl::Duration>({absl::Seconds(2), absl::Seconds(4), absl::Seconds(10)})}),
        texts_(random_.Between(2, 8)),
        slack_(random_.Between(5, 8)) {}

  std::set<std::string> Run() {
    const absl::Time end = server_.loop().Now() + kLength;
    for (int caller = 0; caller < 24; ++caller) {
      server_.loop().After(random_.UpTo(absl::Milliseconds(100)), [this, caller, end] { Call(caller, end); });
    }
    RunToTheEnd(server_);
    const double serial = absl::FDivDuration(kLength, Alone());
    if (in_time_ < kGoodput * serial) {
      server_.checker().Violate(
          absl::StrCat(in_time_, " calls were in time, but one caller alone would make ", serial));
    }
    return server_.checker().violations();
  }

 private:
  static constexpr absl::Duration kLength = absl::Seconds(8);
  static constexpr double kGoodput = 0.85;  // The threshold is that of the same load on a real server.

  // Returns the time of one call alone. Each text is a sequence of 16 tokens, and four of them fill a batch.
  absl::Duration Alone() const {
    return texts_ * 16 * absl::Milliseconds(2) + (texts_ + 3) / 4 * absl::Microseconds(500);
  }

  void Call(int caller, absl::Time end) {
    if (server_.loop().Now() > end) return;
    UnarySpec spec{.client = absl::StrCat("10.0.0.", caller % 3 == 0 ? 1 : caller)};
    for (int64_t i = 0; i < texts_; ++i) spec.texts.push_back(RandomWords(random_, 11, 11));
    spec.time_left = slack_ * Alone();
    spec.then = [this, caller, end](const absl::Status& status, absl::Duration took) {
      if (status.ok() && took <= slack_ * Alone()) ++in_time_;
      const absl::Duration delay = RetryDelay(status).value_or(absl::Milliseconds(1));
      server_.loop().After(delay, [this, caller, end] { Call(caller, end); });
    };
    CallUnary(server_, std::move(spec));
  }

  Random random_;
  SimulatedServer server_;
  const int64_t texts_, slack_;
  int in_time_ = 0;
};

std::set<std::string> RunWorld(uint64_t seed) {
  constexpr uint64_t kKinds = 16;
  if (seed % kKinds == 1 || seed % kKinds == 9) return CrowdWorld(seed).Run();
  if (seed % kKinds == 5) return TokenizerWorld(seed).Run();
  if (seed % kKinds == 6) return SharesWorld(seed).Run();
  if (seed % kKinds == 2) return DeadlineWorld(seed).Run();
  return GeneralWorld(seed).Run();
}

}  // namespace

std::vector<std::string> Simulate(uint64_t seed) {
  SetLogLevel(LogLevel::kError);
  try {
    const std::set<std::string> violations = RunWorld(seed);
    return {violations.begin(), violations.end()};
  } catch (const std::exception& error) {
    return {absl::StrCat("an exception got out: ", error.what())};
  }
}

}  // namespace longembed
