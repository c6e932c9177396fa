#include "model/text/prompt.h"

#include <algorithm>

#include "model/errors/errors.h"
#include "model/text/utf8.h"

namespace longembed {
namespace {

template <typename Value>
std::vector<std::string> Keys(const std::map<std::string, Value>& map) {
  std::vector<std::string> keys;
  keys.reserve(map.size());
  for (const auto& [key, value] : map) keys.push_back(key);
  return keys;
}

}  // namespace

absl::StatusOr<std::string> ResolvePrompt(const ModelManifest& model, const PromptChoice& choice) {
  if (const auto* literal = std::get_if<LiteralPrompt>(&choice)) return literal->text;
  if (const auto* named = std::get_if<PromptName>(&choice)) {
    const auto found = model.prompts.find(named->name);
    if (found == model.prompts.end()) {
      return UnknownPrompt("options.prompt_name", named->name, Keys(model.prompts));
    }
    return found->second;
  }
  if (const auto* type = std::get_if<InputType>(&choice)) {
    const std::string name = *type == InputType::kQuery ? "QUERY" : "DOCUMENT";
    const auto found = model.input_types.find(name);
    if (found == model.input_types.end()) {
      return UnknownPrompt("options.input_type", name, Keys(model.input_types));
    }
    return model.prompts.at(found->second);
  }
  return model.default_prompt_name.empty() ? std::string() : model.prompts.at(model.default_prompt_name);
}

absl::StatusOr<PromptedTokens> TokenizeWithPrompt(const Tokenizer& tokenizer, std::string_view prompt,
                                                  std::string_view text, int64_t max_tokens) {
  if (text.empty()) return EmptyInput();
  // Before the prompt moves it: the byte that the error names is one of the text.
  if (const auto byte = FirstInvalidUtf8Byte(text); byte.has_value()) return InvalidUtf8("text", *byte);
  // Without a prompt the text is not copied, which matters for texts of megabytes.
  const std::string joined = prompt.empty() ? std::string() : std::string(prompt).append(text);
  // With room for the prompt's: a byte of it may become several.
  const int64_t enough = max_tokens + 16 * static_cast<int64_t>(prompt.size());
  const absl::StatusOr<TokenizedText> tokens =
      tokenizer.Tokenize(prompt.empty() ? text : std::string_view(joined), enough);
  if (!tokens.ok()) return tokens.status();

  const auto first_content = std::find_if(tokens->ranges.begin(), tokens->ranges.end(),
                                          [&](ByteRange range) { return range.end > prompt.size(); });
  const auto split = first_content - tokens->ranges.begin();
  const auto count = static_cast<int64_t>(tokens->ids.size());
  if (count > enough || count - split > max_tokens) return InputBeyondLimit(count - split, max_tokens);
  PromptedTokens result;
  result.prompt.assign(tokens->ids.begin(), tokens->ids.begin() + split);
  result.content.assign(tokens->ids.begin() + split, tokens->ids.end());
  result.content_ranges.assign(first_content, tokens->ranges.end());
  const auto seam = static_cast<uint32_t>(prompt.size());
  for (ByteRange& range : result.content_ranges) {
    range.begin = std::max(range.begin, seam) - seam;
    range.end -= seam;
  }
  return result;
}

}  // namespace longembed
