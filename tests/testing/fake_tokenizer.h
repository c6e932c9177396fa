// A tokenizer and manifests that are simple enough to follow by hand.
#ifndef LONGEMBED_TESTS_TESTING_FAKE_TOKENIZER_H_
#define LONGEMBED_TESTS_TESTING_FAKE_TOKENIZER_H_

#include <string>
#include <string_view>

#include "model/manifest/manifest.h"
#include "model/text/tokenizer.h"

namespace longembed {

// Splits a text at blanks. Every run of other bytes is one token, and its id is 10 + its length, at most 99. A blank
// belongs to the word after it, as in byte-level BPE: the range of " cd" in "ab cd" is [2, 5).
class FakeTokenizer final : public Tokenizer {
 public:
  // Tokenizing a text that contains `no_memory` throws std::bad_alloc. Empty: no text does.
  explicit FakeTokenizer(std::string_view no_memory = "") : no_memory_(no_memory) {}

  // Takes kBytesPerByte of memory for each byte of a text.
  absl::StatusOr<TokenizedText> Tokenize(std::string_view text, int64_t enough, const HoldMemory& hold) const override;
  static constexpr int64_t kBytesPerByte = 8;
  // Cuts before the first blank of a run.
  size_t CutAfter(std::string_view text, size_t at) const override;
  size_t CutBefore(std::string_view text, size_t at) const override;
  absl::StatusOr<std::string> TokenText(int32_t id) const override;
  absl::StatusOr<std::string> Decode(std::span<const uint32_t> ids, bool skip_special_tokens) const override;
  int32_t vocabulary_size() const override { return 100; }

 private:
  const std::string no_memory_;
};

// Returns a manifest with mean pooling, special tokens 1 and 2, window and plain limit 16, vectors of
// FakeEncoder::kWidth components, and the prompts "query" and "passage".
ModelManifest FakeManifest();

// Returns the same manifest with rotary positions, 8 components per head, and base 10,000.
ModelManifest FakeRopeManifest();

}  // namespace longembed

#endif  // LONGEMBED_TESTS_TESTING_FAKE_TOKENIZER_H_
