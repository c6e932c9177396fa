// Text to tokens. hf_tokenizer.h has the implementation; tests have a small one of their own.
#ifndef LONGEMBED_MODEL_TEXT_TOKENIZER_H_
#define LONGEMBED_MODEL_TEXT_TOKENIZER_H_

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace longembed {

// Bytes of a text, half open: [begin, end).
struct ByteRange {
  uint32_t begin = 0;
  uint32_t end = 0;

  friend bool operator==(const ByteRange&, const ByteRange&) = default;
};

// Two arrays of equal length: the vocabulary's ids and where in the text each token stands.
struct TokenizedText {
  std::vector<int32_t> ids;
  std::vector<ByteRange> ranges;
};

// Multiple threads can call the const methods of one Tokenizer without external synchronization.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Tokens without special tokens around them; none for an empty text. A special token spelt out in the text counts as
  // that token. A text of more than `enough` tokens may be read in part: the result has more than `enough` tokens
  // then, those of its beginning. Errors (INVALID_ARGUMENT): INVALID_UTF8, with the first bad byte;
  // TOKENIZER_FAILED.
  virtual absl::StatusOr<TokenizedText> Tokenize(std::string_view text, int64_t enough = kEverything) const = 0;
  static constexpr int64_t kEverything = std::numeric_limits<int64_t>::max();

  // A place where the text, which is UTF-8, can be cut so that its two parts have the tokens of the whole: the first
  // one at byte `at` or after it, the text's size where there is none.
  virtual size_t CutAfter(std::string_view text, [[maybe_unused]] size_t at) const { return text.size(); }
  // The last such place at byte `at` or before it, 0 where there is none.
  virtual size_t CutBefore([[maybe_unused]] std::string_view text, [[maybe_unused]] size_t at) const { return 0; }

  // The token as the vocabulary spells it ("##ing"). Errors (INVALID_ARGUMENT): no token has this id.
  virtual absl::StatusOr<std::string> TokenText(int32_t id) const = 0;

  // The text that the tokens stand for, special tokens left out on demand. Errors (INVALID_ARGUMENT): no token has one
  // of these ids.
  virtual absl::StatusOr<std::string> Decode(std::span<const uint32_t> ids, bool skip_special_tokens) const = 0;

  // One more than the largest id.
  virtual int32_t vocabulary_size() const = 0;
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_TEXT_TOKENIZER_H_
