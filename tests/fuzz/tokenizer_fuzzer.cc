// Fuzzes the C ABI of the tokenizer crate. An input that begins with '{' is a tokenizer.json, followed by a NUL and a
// text. Any other input is a text for the tokenizers in tests/fuzz/tokenizers.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "model/text/hf_tokenizers/hf_tokenizers.h"
#include "model/text/utf8.h"
#include "tests/fuzz/expect.h"

namespace {

using longembed::FirstInvalidUtf8Byte;

constexpr const char* kGoodTokenizers[] = {"byte_level_bpe", "unigram", "wordpiece"};
constexpr char kText[] =
    "The river mills\tunbelievably a2 b caf\u00e9 \u6771\u4eac \ufdfa e\u0301 \U0001f600 [CLS] <s>!?";

// A buffer for an error message. The byte after it must not be accessed.
class ErrorBuffer {
 public:
  explicit ErrorBuffer(size_t capacity) : bytes_(capacity + 1, kGuard) {}

  char* data() { return bytes_.size() == 1 ? nullptr : bytes_.data(); }
  size_t capacity() const { return bytes_.size() - 1; }

  // Checks that the guard byte is intact, and that a failure comes with a message.
  void Expect(LongembedHfStatus status) const {
    FUZZ_EXPECT(bytes_.back() == kGuard);
    if (status == LONGEMBED_HF_OK || capacity() == 0) return;
    const void* end = std::memchr(bytes_.data(), 0, capacity());
    FUZZ_EXPECT(end != nullptr);
    FUZZ_EXPECT(!FirstInvalidUtf8Byte(bytes_.data()).has_value());
  }

 private:
  static constexpr char kGuard = '\x5a';
  std::vector<char> bytes_;
};

struct Tokens {
  std::vector<int32_t> ids;
  std::vector<uint32_t> begins, ends;
  int calls = 0;

  friend bool operator==(const Tokens&, const Tokens&) = default;
};

void CollectTokens(void* context, const int32_t* ids, const uint32_t* begins, const uint32_t* ends, size_t count) {
  auto& tokens = *static_cast<Tokens*>(context);
  tokens.ids.assign(ids, ids + count);
  tokens.begins.assign(begins, begins + count);
  tokens.ends.assign(ends, ends + count);
  ++tokens.calls;
}

struct Text {
  std::string bytes;
  int calls = 0;
};

void CollectText(void* context, const char* text, size_t length) {
  auto& collected = *static_cast<Text*>(context);
  collected.bytes.assign(text, length);
  ++collected.calls;
}

void CollectRanges(void* context, const uint32_t* begins, const uint32_t* ends, size_t count) {
  auto& ranges = *static_cast<Tokens*>(context);
  ranges.begins.insert(ranges.begins.end(), begins, begins + count);
  ranges.ends.insert(ranges.ends.end(), ends, ends + count);
  ++ranges.calls;
}

struct Close {
  void operator()(LongembedHfTokenizer* tokenizer) const { longembed_hf_close(tokenizer); }
};
using Handle = std::unique_ptr<LongembedHfTokenizer, Close>;

constexpr size_t kPieceBytes = 8, kWhole = SIZE_MAX;

std::pair<LongembedHfStatus, Handle> Open(std::string_view json, size_t piece_bytes) {
  LongembedHfTokenizer* tokenizer = nullptr;
  ErrorBuffer error(json.size() % 70);
  const LongembedHfStatus status =
      longembed_hf_open(json.data(), json.size(), piece_bytes, &tokenizer, error.data(), error.capacity());
  error.Expect(status);
  FUZZ_EXPECT((status == LONGEMBED_HF_OK) == (tokenizer != nullptr));
  return {status, Handle(tokenizer)};
}

// Encodes a text. Returns the status, and the tokens if it is OK.
std::pair<LongembedHfStatus, Tokens> Encode(const Handle& tokenizer, std::string_view text, size_t enough = SIZE_MAX) {
  Tokens tokens;
  ErrorBuffer error(text.size() % 70);
  const LongembedHfStatus status = longembed_hf_encode(tokenizer.get(), text.data(), text.size(), enough, nullptr,
                                                       &CollectTokens, &tokens, error.data(), error.capacity());
  error.Expect(status);
  FUZZ_EXPECT(tokens.calls == (status == LONGEMBED_HF_OK ? 1 : 0));
  FUZZ_EXPECT((status == LONGEMBED_HF_INVALID_UTF8) == FirstInvalidUtf8Byte(text).has_value());
  for (size_t i = 0; i < tokens.ids.size(); ++i) {
    FUZZ_EXPECT(tokens.ids[i] >= 0 && tokens.ids[i] < longembed_hf_vocabulary_size(tokenizer.get()));
    FUZZ_EXPECT(tokens.begins[i] <= tokens.ends[i] && tokens.ends[i] <= text.size());
  }
  return {status, std::move(tokens)};
}

// One tokenizer, opened twice: one copy cuts texts into small pieces, and the other never cuts.
struct Cutting {
  Handle pieces;
  Handle whole;
};

// Checks that cutting a text into pieces does not change its tokens, and that encoding only the first pieces returns
// the first tokens.
void CheckPieces(const Cutting& tokenizer, std::string_view text, const std::pair<LongembedHfStatus, Tokens>& whole) {
  FUZZ_EXPECT(Encode(tokenizer.pieces, text) == whole);
  const size_t enough = text.size() / 4;
  const auto [status, some] = Encode(tokenizer.pieces, text, enough);
  if (status != LONGEMBED_HF_OK || whole.first != LONGEMBED_HF_OK) return;
  FUZZ_EXPECT(some.ids.size() > enough || some == whole.second);
  FUZZ_EXPECT(std::ranges::equal(some.ids, std::span(whole.second.ids).first(some.ids.size())));
}

LongembedHfStatus Decode(const Handle& tokenizer, const std::vector<uint32_t>& ids, bool skip_special_tokens) {
  Text text;
  ErrorBuffer error(ids.size() % 70);
  const LongembedHfStatus status = longembed_hf_decode(tokenizer.get(), ids.data(), ids.size(), skip_special_tokens,
                                                       &CollectText, &text, error.data(), error.capacity());
  error.Expect(status);
  FUZZ_EXPECT(text.calls == (status == LONGEMBED_HF_OK ? 1 : 0));
  FUZZ_EXPECT(!FirstInvalidUtf8Byte(text.bytes).has_value());
  return status;
}

LongembedHfStatus TokenText(const Handle& tokenizer, int32_t id) {
  Text text;
  ErrorBuffer error(40);
  const LongembedHfStatus status =
      longembed_hf_token_text(tokenizer.get(), id, &CollectText, &text, error.data(), error.capacity());
  error.Expect(status);
  FUZZ_EXPECT(text.calls == (status == LONGEMBED_HF_OK ? 1 : 0));
  FUZZ_EXPECT(!FirstInvalidUtf8Byte(text.bytes).has_value());
  return status;
}

// Checks that sentences cover the text without gaps.
void CheckSentences(std::string_view text) {
  Tokens sentences;
  ErrorBuffer error(40);
  const LongembedHfStatus status =
      longembed_hf_sentences(text.data(), text.size(), &CollectRanges, &sentences, error.data(), error.capacity());
  error.Expect(status);
  FUZZ_EXPECT(status == (FirstInvalidUtf8Byte(text).has_value() ? LONGEMBED_HF_INVALID_UTF8 : LONGEMBED_HF_OK));
  if (status != LONGEMBED_HF_OK) return;
  uint32_t position = 0;
  for (size_t i = 0; i < sentences.begins.size(); ++i) {
    FUZZ_EXPECT(sentences.begins[i] == position && sentences.ends[i] > position);
    position = sentences.ends[i];
  }
  FUZZ_EXPECT(position == text.size());
}

const std::vector<Cutting>& GoodTokenizers() {
  static const std::vector<Cutting>& tokenizers = []() -> const std::vector<Cutting>& {
    auto& opened = *new std::vector<Cutting>;
    for (const std::string name : kGoodTokenizers) {
      std::ifstream file(std::string(LONGEMBED_FUZZ_TOKENIZERS "/") + name + ".json");
      const std::string json{std::istreambuf_iterator(file), {}};
      auto [status, whole] = Open(json, kWhole);
      FUZZ_EXPECT(status == LONGEMBED_HF_OK);
      opened.push_back({.pieces = Open(json, kPieceBytes).second, .whole = std::move(whole)});
    }
    return opened;
  }();
  return tokenizers;
}

// Checks a text with tokenizers like those of real models. They must accept every UTF-8 text.
void CheckText(std::string_view text) {
  CheckSentences(text);
  for (const Cutting& each : GoodTokenizers()) {
    const Handle& tokenizer = each.whole;
    const auto encoded = Encode(tokenizer, text);
    const auto& [status, tokens] = encoded;
    FUZZ_EXPECT(status == LONGEMBED_HF_OK || status == LONGEMBED_HF_INVALID_UTF8);
    FUZZ_EXPECT(Encode(tokenizer, text) == encoded);
    CheckPieces(each, text, encoded);
    // Binary search for spans of code points requires this order.
    FUZZ_EXPECT(std::ranges::is_sorted(tokens.begins) && std::ranges::is_sorted(tokens.ends));
    for (const int32_t id : tokens.ids) FUZZ_EXPECT(TokenText(tokenizer, id) == LONGEMBED_HF_OK);
    const std::vector<uint32_t> ids(tokens.ids.begin(), tokens.ids.end());
    for (const bool skip : {false, true}) FUZZ_EXPECT(Decode(tokenizer, ids, skip) == LONGEMBED_HF_OK);
  }
}

// Checks arbitrary bytes as a tokenizer.json. The result is an error, or a tokenizer whose calls all return.
void CheckJson(std::string_view json, std::string_view text) {
  auto [status, tokenizer] = Open(json, kWhole);
  if (status != LONGEMBED_HF_OK) return;
  const int32_t size = longembed_hf_vocabulary_size(tokenizer.get());
  FUZZ_EXPECT(size >= 0);
  for (const int32_t id : {-1, 0, 1, size - 1, size}) TokenText(tokenizer, id);
  FUZZ_EXPECT(TokenText(tokenizer, size) == LONGEMBED_HF_NO_SUCH_TOKEN);
  for (const std::string_view each : {std::string_view(kText), text, std::string_view()}) {
    const auto first = Encode(tokenizer, each);
    FUZZ_EXPECT(Encode(tokenizer, each) == first);  // The result must also be the same after a panic.
    const std::vector<uint32_t> ids(first.second.ids.begin(), first.second.ids.end());
    Decode(tokenizer, ids, each.size() % 2 == 0);
  }
  Decode(tokenizer, {0, 1, static_cast<uint32_t>(size), UINT32_MAX}, true);
  const Cutting cutting{.pieces = Open(json, kPieceBytes).second, .whole = std::move(tokenizer)};
  for (const std::string_view each : {std::string_view(kText), text}) {
    CheckPieces(cutting, each, Encode(cutting.whole, each));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  if (!input.starts_with('{')) {
    CheckText(input);
    return 0;
  }
  const size_t end = std::min(input.find('\0'), size);
  CheckJson(input.substr(0, end), input.substr(std::min(end + 1, size)));
  return 0;
}
