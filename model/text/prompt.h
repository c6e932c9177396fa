// Puts prompts before inputs, and finds where the input's own tokens begin. Stateless: any thread.
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

// A request's choice of prompt. std::monostate: none given; it gets the model's default prompt, if there is one.
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
  // Number of further tokens of the content before and after these.
  int64_t before = 0;
  int64_t after = 0;
  bool estimated = false;  // One of the two numbers is an estimate by the bytes that were not tokenized.
};

// The part of a text's tokens that is needed.
struct NeededTokens {
  int64_t count = Tokenizer::kEverything;  // No more content tokens than these.
  bool from_end = false;                   // Those of the text's end.
  bool count_rest = false;                 // Exactly, however long it is.
};

// Tokenizes prompt and text as one, because tokenizers merge differently at a seam. The content begins at the first
// token that ends beyond the prompt; blanks alone may have none. Errors (INVALID_ARGUMENT): those of
// Tokenizer::Tokenize; EMPTY_INPUT; INPUT_BEYOND_SERVER_LIMIT when the content has more than `max_tokens`.
absl::StatusOr<PromptedTokens> TokenizeWithPrompt(const Tokenizer& tokenizer, std::string_view prompt,
                                                  std::string_view text, int64_t max_tokens);

// The same for a part of the tokens: those that are needed, and a few more. They are those of the whole text. The rest
// is not kept, and counts for no limit; a rest of more than kCountedBytes is not tokenized either, unless it has to be
// counted. Time and memory do not grow with the rest where the tokenizer tells places to cut at. Errors: those of
// TokenizeWithPrompt but INPUT_BEYOND_SERVER_LIMIT.
absl::StatusOr<PromptedTokens> TokenizePart(const Tokenizer& tokenizer, std::string_view prompt, std::string_view text,
                                            const NeededTokens& needed);
inline constexpr size_t kCountedBytes = 64 << 10;

// About how many bytes of a text TokenizePart tokenizes.
int64_t BytesOfPart(const Tokenizer& tokenizer, int64_t text_bytes, const NeededTokens& needed);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_TEXT_PROMPT_H_
