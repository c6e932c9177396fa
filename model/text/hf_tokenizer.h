// The tokenizer of a Hugging Face tokenizer.json, run by the `tokenizers` crate behind a C ABI (hf_tokenizers/).
#ifndef LONGEMBED_MODEL_TEXT_HF_TOKENIZER_H_
#define LONGEMBED_MODEL_TEXT_HF_TOKENIZER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "model/text/tokenizer.h"

namespace longembed {

// Loads a tokenizer. Apart from the tokens themselves, its memory does not grow with the text as long as the text can
// be cut without changing the tokens (hf_tokenizers/src/pieces.rs). A piece that cannot be cut may have up to 2.5 MiB
// of letters, or half a MiB of other characters, which takes up to half a gigabyte of memory. Errors:
// FAILED_PRECONDITION with the path if the file cannot be read or is not a tokenizer.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadHuggingFaceTokenizer(const std::string& path);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_TEXT_HF_TOKENIZER_H_
