// Splits a text into sentences (Unicode Standard Annex 29, by the crate unicode-segmentation). Stateless functions that
// any thread can call.
#ifndef LONGEMBED_MODEL_TEXT_SENTENCES_H_
#define LONGEMBED_MODEL_TEXT_SENTENCES_H_

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "model/text/tokenizer.h"

namespace longembed {

// Returns the sentences in order. They cover the text without gaps; whitespace after a sentence belongs to it. Errors
// (INVALID_ARGUMENT): INVALID_UTF8, TOKENIZER_FAILED.
absl::StatusOr<std::vector<ByteRange>> SplitSentences(std::string_view text);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_TEXT_SENTENCES_H_
