// Puts prompts before inputs, and finds where the input's own tokens begin. Stateless functions that any thread can
// call.
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

// A request's choice of prompt. std::monostate means no choice: the model's default prompt applies, if there is one.
struct PromptName {
  std::string name;  // A key of ModelManifest::prompts.
};
enum class InputType { kQuery, kDocument };  // The manifest maps it to a prompt's name.
struct LiteralPrompt {
  std::string text;
};
using PromptChoice = std::variant<std::monostate, PromptName, InputType, LiteralPrompt>;

// Returns the text to put before each input. Errors (INVALID_ARGUMENT): UNKNOWN_PROMPT.
absl::StatusOr<std::string> ResolvePrompt(const ModelManifest& model, const PromptChoice& choice);

// An input's tokens without special tokens, separated into prompt and content.
struct PromptedTokens {
  std::vector<int32_t> prompt;            // Precedes the content of every sequence.
  std::vector<int32_t> content;           // May be empty if the text is only whitespace.
  std::vector<ByteRange> content_ranges;  // Place of each content token, in bytes of the text without the prompt.
  // Numbers of content tokens before and after those in `content`.
  int64_t before = 0;
  int64_t after = 0;
  // Whether `before` or `after` is an estimate from the number of bytes that were not tokenized.
  bool estimated = false;
};

// The part of a text's tokens that a caller needs.
struct NeededTokens {
  int64_t count = Tokenizer::kEverything;  // Number of content tokens.
  bool from_end = false;                   // The last tokens of the text instead of the first.
  bool count_rest = false;                 // Count all other tokens exactly, even in a long text.
};

// Tokenizes prompt and text as one string, because tokenizers may merge across the boundary. The content begins at the
// first token that ends after the prompt; a text of whitespace may have none. Errors: those of Tokenizer::Tokenize,
// EMPTY_INPUT, and INPUT_BEYOND_SERVER_LIMIT if the content has more than `max_tokens` (both INVALID_ARGUMENT).
absl::StatusOr<PromptedTokens> TokenizeWithPrompt(const Tokenizer& tokenizer, std::string_view prompt,
                                                  std::string_view text, int64_t max_tokens,
                                                  const HoldMemory& hold = {});

// Tokenizes like TokenizeWithPrompt, but returns only the needed tokens and a few more. They are the same tokens as in
// the whole text. The rest of the text is not kept and no limit applies to it. If the rest has more than kCountedBytes,
// it is not tokenized unless it has to be counted. Time and memory do not grow with the rest if the tokenizer finds
// places to cut. Errors: those of TokenizeWithPrompt except INPUT_BEYOND_SERVER_LIMIT.
absl::StatusOr<PromptedTokens> TokenizePart(const Tokenizer& tokenizer, std::string_view prompt, std::string_view text,
                                            const NeededTokens& needed, const HoldMemory& hold = {});
inline constexpr size_t kCountedBytes = 64 << 10;

// Returns approximately how many bytes of a text TokenizePart tokenizes.
int64_t BytesOfPart(const Tokenizer& tokenizer, int64_t text_bytes, const NeededTokens& needed);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_TEXT_PROMPT_H_
