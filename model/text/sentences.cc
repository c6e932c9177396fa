#include "model/text/sentences.h"

#include <optional>

#include "model/errors/errors.h"
#include "model/text/hf_tokenizers/hf_tokenizers.h"
#include "model/text/utf8.h"

namespace longembed {
namespace {

void CollectRanges(void* context, const uint32_t* begins, const uint32_t* ends, size_t count) noexcept {
  auto& ranges = *static_cast<std::vector<ByteRange>*>(context);
  ranges.reserve(count);
  for (size_t i = 0; i < count; ++i) ranges.push_back({begins[i], ends[i]});
}

}  // namespace

absl::StatusOr<std::vector<ByteRange>> SplitSentences(std::string_view text) {
  if (const std::optional<size_t> byte = FirstInvalidUtf8Byte(text); byte.has_value())
    return InvalidUtf8("text", *byte);
  std::vector<ByteRange> sentences;
  char error[256] = "";
  const LongembedHfStatus status =
      longembed_hf_sentences(text.data(), text.size(), &CollectRanges, &sentences, error, sizeof(error));
  if (status != LONGEMBED_HF_OK) return TokenizerFailed(error);
  return sentences;
}

}  // namespace longembed
