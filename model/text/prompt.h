// Prompts: which text goes before an input, and where the input's own tokens begin. Stateless: any thread.
#ifndef LONGEMBED_MODEL_TEXT_PROMPT_H_
#define LONGEMBED_MODEL_TEXT_PROMPT_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "model/manifest/manifest.h"
#include "model/text/tokenizer.h"

namespace longembed {

// How a request names its prompt. std::monostate: not at all; it gets the model's default prompt, if there is one.
struct PromptName {
  std::string name;  // Of ModelManifest::prompts.
};
enum class InputType { kQuery, kDocument };  // Mapped to a name by the manifest.
struct LiteralPrompt {
  std::string text;
};
using PromptChoice = std::variant<std::monostate, PromptName, InputType, LiteralPrompt>;

// The text to put before each input. Errors (INVALID_ARGUMENT): UNKNOWN_PROMPT.
absl::StatusOr<std::string> ResolvePrompt(const ModelManifest& model, const PromptChoice& choice);

// An input's tokens without special tokens, the prompt's apart.
struct PromptedTokens {
  std::vector<int32_t> prompt;            // Put before the content of every sequence.
  std::vector<int32_t> content;           // Empty for blanks alone.
  std::vector<ByteRange> content_ranges;  // Of each content token, in bytes of the text without the prompt.
};

// Tokenises prompt and text as one, because tokenizers merge differently at a seam. The content begins at the first
// token that ends beyond the prompt; blanks alone may have none. Errors (INVALID_ARGUMENT): those of
// Tokenizer::Tokenize; EMPTY_INPUT; INPUT_BEYOND_SERVER_LIMIT when the content has more than `max_tokens`.
absl::StatusOr<PromptedTokens> TokenizeWithPrompt(const Tokenizer& tokenizer, std::string_view prompt,
                                                  std::string_view text, int64_t max_tokens);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_TEXT_PROMPT_H_
