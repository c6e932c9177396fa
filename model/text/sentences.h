// Sentences of a text (Unicode Standard Annex 29, by the crate unicode-segmentation). Stateless: any thread.
#ifndef LONGEMBED_MODEL_TEXT_SENTENCES_H_
#define LONGEMBED_MODEL_TEXT_SENTENCES_H_

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "model/text/tokenizer.h"

namespace longembed {

// In order, covering the text without gaps; blanks after a sentence belong to it. Errors (INVALID_ARGUMENT):
// INVALID_UTF8, TOKENIZER_FAILED.
absl::StatusOr<std::vector<ByteRange>> SplitSentences(std::string_view text);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_TEXT_SENTENCES_H_
