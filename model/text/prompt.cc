#include "model/text/prompt.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "model/errors/errors.h"
#include "model/text/utf8.h"
#include "system/return_if_error.h"

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
                                                  std::string_view text, int64_t max_tokens, const HoldMemory& hold) {
  if (text.empty()) return EmptyInput();
  // Checked before the prompt is prepended, so that errors give a byte offset in the text.
  if (const auto byte = FirstInvalidUtf8Byte(text); byte.has_value()) return InvalidUtf8("text", *byte);
  // The text may have megabytes, so it is copied only if there is a prompt.
  const std::string joined = prompt.empty() ? std::string() : std::string(prompt).append(text);
  // Includes room for the prompt's tokens; a byte may become several tokens.
  const int64_t of_prompt = 16 * static_cast<int64_t>(prompt.size());
  const int64_t enough = std::min(max_tokens, Tokenizer::kEverything - of_prompt) + of_prompt;
  HoldMemory hold_all;
  if (hold) hold_all = [&](int64_t bytes) { return hold(bytes + static_cast<int64_t>(joined.size())); };
  const absl::StatusOr<TokenizedText> tokens =
      tokenizer.Tokenize(prompt.empty() ? text : std::string_view(joined), enough, hold_all);
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

namespace {

// Size of the pieces in which a text is tokenized. Pieces are slightly shorter, and longer only where the text cannot
// be cut.
constexpr size_t kPieceBytes = 64 << 10;

// Returns the end of the piece of about `bytes` bytes that begins at `begin`, which is 0 or a place to cut.
size_t EndOfPiece(const Tokenizer& tokenizer, std::string_view text, size_t begin, size_t bytes = kPieceBytes) {
  if (text.size() - begin <= bytes) return text.size();
  const size_t before = tokenizer.CutBefore(text, begin + bytes);
  return before > begin ? before : tokenizer.CutAfter(text, begin + bytes);
}

// Returns the beginning of the piece that ends at `end`, which is the end of the text or a place to cut. The result is
// not before `first`.
size_t BeginOfPiece(const Tokenizer& tokenizer, std::string_view text, size_t first, size_t end) {
  if (end - first <= kPieceBytes) return first;
  const size_t after = tokenizer.CutAfter(text, end - kPieceBytes);
  return after < end ? after : std::max(first, tokenizer.CutBefore(text, end - kPieceBytes));
}

// Tokenizes the needed part of a text. Lives during one TokenizePart call.
class PartTokenizer {
 public:
  PartTokenizer(const Tokenizer& tokenizer, std::string_view text, const NeededTokens& needed, const HoldMemory& hold)
      : tokenizer_(tokenizer), text_(text), needed_(needed), hold_(hold) {}

  // Returns the needed tokens. `head` holds the tokens of the prompt and of the text before byte `end`, which is a
  // place to cut.
  absl::StatusOr<PromptedTokens> Run(PromptedTokens head, size_t end) {
    bytes_ = static_cast<int64_t>(end);
    tokens_ = std::ssize(head.content);
    RETURN_IF_ERROR(needed_.from_end ? TakeEnd(head, end) : TakeBeginning(head, end));
    return head;
  }

 private:
  bool Enough(const PromptedTokens& part) const { return std::ssize(part.content) > needed_.count; }

  absl::Status TakeBeginning(PromptedTokens& part, size_t end) {
    while (end < text_.size() && !Enough(part)) {
      const size_t next = EndOfPiece(tokenizer_, text_, end);
      const absl::StatusOr<TokenizedText> piece = Tokenize(end, next);
      if (!piece.ok()) return piece.status();
      Append(*piece, end, part);
      end = next;
    }
    return Count(end, text_.size(), part.after, part.estimated);
  }

  absl::Status TakeEnd(PromptedTokens& head, size_t head_end) {
    size_t begin = text_.size();
    std::vector<std::pair<size_t, TokenizedText>> pieces;  // Pieces in reverse order, each with its begin in the text.
    int64_t count = 0;
    while (begin > head_end && count <= needed_.count) {
      const size_t end = begin;
      begin = BeginOfPiece(tokenizer_, text_, head_end, end);
      absl::StatusOr<TokenizedText> piece = Tokenize(begin, end);
      if (!piece.ok()) return piece.status();
      count += std::ssize(piece->ids);
      pieces.emplace_back(begin, *std::move(piece));
    }
    const bool with_head = begin == head_end && count <= needed_.count;
    PromptedTokens part;
    std::swap(part.prompt, head.prompt);
    if (with_head) {
      std::swap(part.content, head.content);
      std::swap(part.content_ranges, head.content_ranges);
    }
    for (auto piece = pieces.rbegin(); piece != pieces.rend(); ++piece) Append(piece->second, piece->first, part);
    if (!with_head) {
      RETURN_IF_ERROR(Count(head_end, begin, part.before, part.estimated));
      part.before += std::ssize(head.content);
    }
    head = std::move(part);
    return absl::OkStatus();
  }

  absl::StatusOr<TokenizedText> Tokenize(size_t begin, size_t end) {
    absl::StatusOr<TokenizedText> piece =
        tokenizer_.Tokenize(text_.substr(begin, end - begin), Tokenizer::kEverything, hold_);
    if (piece.ok()) {
      bytes_ += static_cast<int64_t>(end - begin);
      tokens_ += std::ssize(piece->ids);
    }
    return piece;
  }

  static void Append(const TokenizedText& piece, size_t begin, PromptedTokens& part) {
    const auto base = static_cast<uint32_t>(begin);
    part.content.insert(part.content.end(), piece.ids.begin(), piece.ids.end());
    for (const ByteRange range : piece.ranges) part.content_ranges.push_back({base + range.begin, base + range.end});
  }

  // Counts the tokens of [begin, end), or estimates them from the tokens per byte so far.
  absl::Status Count(size_t begin, size_t end, int64_t& count, bool& estimated) {
    estimated = end - begin > kCountedBytes && !needed_.count_rest;
    if (estimated) {
      const double tokens_per_byte = static_cast<double>(tokens_) / static_cast<double>(bytes_);
      count = static_cast<int64_t>(tokens_per_byte * static_cast<double>(end - begin));
      return absl::OkStatus();
    }
    while (begin < end) {
      const size_t next = std::min(end, EndOfPiece(tokenizer_, text_, begin));
      const absl::StatusOr<TokenizedText> piece = Tokenize(begin, next);
      if (!piece.ok()) return piece.status();
      count += std::ssize(piece->ids);
      begin = next;
    }
    return absl::OkStatus();
  }

  const Tokenizer& tokenizer_;
  const std::string_view text_;
  const NeededTokens needed_;
  const HoldMemory& hold_;
  // Bytes and tokens tokenized so far.
  int64_t bytes_ = 0;
  int64_t tokens_ = 0;
};

}  // namespace

absl::StatusOr<PromptedTokens> TokenizePart(const Tokenizer& tokenizer, std::string_view prompt, std::string_view text,
                                            const NeededTokens& needed, const HoldMemory& hold) {
  if (const auto byte = FirstInvalidUtf8Byte(text); byte.has_value()) return InvalidUtf8("text", *byte);
  // If the end of the text is needed, its beginning is tokenized only to get the prompt's tokens.
  constexpr size_t kSeamBytes = 1 << 10;
  const size_t end = EndOfPiece(tokenizer, text, 0, needed.from_end ? kSeamBytes : kPieceBytes);
  constexpr int64_t kNoLimit = std::numeric_limits<int32_t>::max();
  absl::StatusOr<PromptedTokens> head = TokenizeWithPrompt(tokenizer, prompt, text.substr(0, end), kNoLimit, hold);
  if (!head.ok() || end == text.size()) return head;
  return PartTokenizer(tokenizer, text, needed, hold).Run(*std::move(head), end);
}

int64_t BytesOfPart(const Tokenizer& tokenizer, int64_t text_bytes, const NeededTokens& needed) {
  constexpr std::string_view kTwoWords = "two words";
  // If not even a space between words is a place to cut, the tokenizer finds none, and the whole text is tokenized.
  if (tokenizer.CutAfter(kTwoWords, 0) == kTwoWords.size()) return text_bytes;
  constexpr int64_t kBytesOfToken = 16;  // More than in most languages and vocabularies.
  constexpr auto kEnds = static_cast<int64_t>(2 * kPieceBytes + kCountedBytes);
  if (needed.count_rest || needed.count > (text_bytes - kEnds) / kBytesOfToken) return text_bytes;
  return std::min(text_bytes, kEnds + kBytesOfToken * needed.count);
}

}  // namespace longembed
