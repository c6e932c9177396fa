// The interface of tokenizers, which convert text to tokens. hf_tokenizer.h has the implementation; tests have a small
// one of their own.
#ifndef LONGEMBED_MODEL_TEXT_TOKENIZER_H_
#define LONGEMBED_MODEL_TEXT_TOKENIZER_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace longembed {

// A half-open range of bytes of a text: [begin, end).
struct ByteRange {
  uint32_t begin = 0;
  uint32_t end = 0;

  friend bool operator==(const ByteRange&, const ByteRange&) = default;
};

// The tokens of a text as two arrays of equal length: the vocabulary ids, and each token's place in the text.
struct TokenizedText {
  std::vector<int32_t> ids;
  std::vector<ByteRange> ranges;
};

// Asks whether a call may take `bytes` of memory at once. An error refuses it.
using HoldMemory = std::function<absl::Status(int64_t bytes)>;

// A tokenizer. Multiple threads can call the const methods of one Tokenizer without external synchronization.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Returns the tokens of `text` without the special tokens of the model's template; an empty text has none. A special
  // token spelled out in the text is converted to that token. If the text has more than `enough` tokens, only its
  // beginning may be read: the result then consists of its first tokens, and has more than `enough`. `hold`, unless it
  // is empty, is called before memory is allocated. Memory that it has granted is free again when Tokenize returns,
  // apart from the result's. Errors: INVALID_UTF8 with the first invalid byte, TOKENIZER_FAILED (both
  // INVALID_ARGUMENT), and those of `hold`.
  virtual absl::StatusOr<TokenizedText> Tokenize(std::string_view text, int64_t enough = kEverything,
                                                 const HoldMemory& hold = {}) const = 0;
  static constexpr int64_t kEverything = std::numeric_limits<int64_t>::max();

  // Returns the first place at byte `at` or later where `text`, which is UTF-8, can be cut so that its two parts
  // together have the tokens of the whole. Returns text.size() if there is none.
  virtual size_t CutAfter(std::string_view text, [[maybe_unused]] size_t at) const { return text.size(); }
  // Returns the last such place at byte `at` or earlier, or 0 if there is none.
  virtual size_t CutBefore([[maybe_unused]] std::string_view text, [[maybe_unused]] size_t at) const { return 0; }

  // Returns the token as spelled in the vocabulary ("##ing"). Errors (INVALID_ARGUMENT): no token has this id.
  virtual absl::StatusOr<std::string> TokenText(int32_t id) const = 0;

  // Returns the text of the tokens, without special tokens if `skip_special_tokens`. Errors (INVALID_ARGUMENT): no
  // token has one of these ids.
  virtual absl::StatusOr<std::string> Decode(std::span<const uint32_t> ids, bool skip_special_tokens) const = 0;

  // Returns one more than the largest token id.
  virtual int32_t vocabulary_size() const = 0;
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_TEXT_TOKENIZER_H_
