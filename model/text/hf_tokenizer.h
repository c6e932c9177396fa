// The tokenizer of a Hugging Face tokenizer.json, run by the `tokenizers` crate behind a C ABI (hf_tokenizers/).
#ifndef LONGEMBED_MODEL_TEXT_HF_TOKENIZER_H_
#define LONGEMBED_MODEL_TEXT_HF_TOKENIZER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "model/text/tokenizer.h"

namespace longembed {

// Its memory does not grow with the text, but for the tokens, as long as the text can be cut without changing them
// (hf_tokenizers/src/pieces.rs); what cannot be cut may be 8 MiB long, and takes half a gigabyte. Errors:
// FAILED_PRECONDITION, with the path, when the file cannot be read or is not a tokenizer.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadHuggingFaceTokenizer(const std::string& path);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_TEXT_HF_TOKENIZER_H_
