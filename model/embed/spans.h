// Late chunking: converts the spans of a request to ranges of the text's tokens. Stateless functions that any thread
// can call.
#ifndef LONGEMBED_MODEL_EMBED_SPANS_H_
#define LONGEMBED_MODEL_EMBED_SPANS_H_

#include <cstdint>
#include <span>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "model/plan/sequence.h"
#include "model/text/tokenizer.h"

namespace longembed {

struct NoSpans {};        // One vector for the whole text.
struct GivenRanges {};    // The spans in Input::ranges.
struct SentenceSpans {};  // One span per Unicode sentence.
struct EveryTokens {
  int64_t tokens = 1;  // Tokens per span, at least 1. The last span may be shorter.
};
struct SequenceTokens {};  // One span per token, special tokens and prompt included.
using SpanRequest = std::variant<NoSpans, GivenRanges, SentenceSpans, EveryTokens, SequenceTokens>;

// Returns [0, k), [k, 2k), ... up to `content`, where k = `tokens`.
std::vector<Range> SpansOfEvery(int64_t tokens, int64_t content);

// Returns, for each range of code points of `text`, the tokens that overlap it. `token_bytes` are the places of the
// content tokens in the text, in order. Errors (INVALID_ARGUMENT): SPAN_OUT_OF_RANGE, SPAN_EMPTY (for a range without
// tokens, such as whitespace).
absl::StatusOr<std::vector<Range>> TokensOfCodePoints(std::string_view text, std::span<const Range> ranges,
                                                      std::span<const ByteRange> token_bytes);

// Returns the tokens of each sentence that has any. Errors: those of ForEachSentence.
absl::StatusOr<std::vector<Range>> TokensOfSentences(std::string_view text, std::span<const ByteRange> token_bytes);

// Returns `ranges` after checking them against the number of content tokens. Errors (INVALID_ARGUMENT):
// SPAN_OUT_OF_RANGE.
absl::StatusOr<std::vector<Range>> CheckedTokenRanges(std::span<const Range> ranges, int64_t content);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_EMBED_SPANS_H_
