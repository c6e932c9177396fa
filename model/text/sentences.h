// Splits a text into sentences (Unicode Standard Annex 29, by the crate unicode-segmentation). Stateless functions that
// any thread can call.
#ifndef LONGEMBED_MODEL_TEXT_SENTENCES_H_
#define LONGEMBED_MODEL_TEXT_SENTENCES_H_

#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "model/text/tokenizer.h"

namespace longembed {

// Calls `each` with each sentence in order. The sentences cover the text without gaps; whitespace after a sentence
// belongs to it. There may be as many as the text has bytes. `each` may throw std::bad_alloc, which is thrown on.
// Errors (INVALID_ARGUMENT): INVALID_UTF8, TOKENIZER_FAILED.
absl::Status ForEachSentence(std::string_view text, absl::FunctionRef<void(ByteRange)> each);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_TEXT_SENTENCES_H_
