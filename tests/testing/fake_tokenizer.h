// A tokenizer and a manifest small enough to follow by hand.
#ifndef LONGEMBED_TESTS_TESTING_FAKE_TOKENIZER_H_
#define LONGEMBED_TESTS_TESTING_FAKE_TOKENIZER_H_

#include <string>
#include <string_view>

#include "model/manifest/manifest.h"
#include "model/text/tokenizer.h"

namespace longembed {

// Every run of bytes other than a blank is a token, whose id is 10 + its length, at most 99. A blank joins the word
// after it, as in byte-level BPE: the ranges of " cd" in "ab cd" are [2, 5).
class FakeTokenizer final : public Tokenizer {
 public:
  // A text with this in it is one that there is not the memory for. Empty: there is none.
  explicit FakeTokenizer(std::string_view no_memory = "") : no_memory_(no_memory) {}

  absl::StatusOr<TokenizedText> Tokenize(std::string_view text, int64_t enough) const override;
  // Before the first blank of a run.
  size_t CutAfter(std::string_view text, size_t at) const override;
  size_t CutBefore(std::string_view text, size_t at) const override;
  absl::StatusOr<std::string> TokenText(int32_t id) const override;
  absl::StatusOr<std::string> Decode(std::span<const uint32_t> ids, bool skip_special_tokens) const override;
  int32_t vocabulary_size() const override { return 100; }

 private:
  const std::string no_memory_;
};

// Mean pooling, specials 1 and 2, window and plain limit 16, vectors of FakeEncoder::kWidth, prompts "query" and
// "passage".
ModelManifest FakeManifest();

// The same with rotary positions, 8 components of a head, base 10,000.
ModelManifest FakeRopeManifest();

}  // namespace longembed

#endif  // LONGEMBED_TESTS_TESTING_FAKE_TOKENIZER_H_
