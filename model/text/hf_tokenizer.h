// The tokenizer of a Hugging Face tokenizer.json, run by the `tokenizers` crate behind a C ABI (hf_tokenizers/).
#ifndef LONGEMBED_MODEL_TEXT_HF_TOKENIZER_H_
#define LONGEMBED_MODEL_TEXT_HF_TOKENIZER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "model/text/tokenizer.h"

namespace longembed {

// Errors: FAILED_PRECONDITION, with the path, when the file cannot be read or is no tokenizer.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadHuggingFaceTokenizer(const std::string& path);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_TEXT_HF_TOKENIZER_H_
