// Late chunking: converts the spans of a request to token ranges of one pass over the text. Stateless:
// any thread.
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
struct GivenRanges {};    // Input::ranges.
struct SentenceSpans {};  // Unicode sentences.
struct EveryTokens {
  int64_t tokens = 1;  // >= 1; the last span may be shorter.
};
struct SequenceTokens {};  // Each token of the text as encoded, special tokens and prompt included, once.
using SpanRequest = std::variant<NoSpans, GivenRanges, SentenceSpans, EveryTokens, SequenceTokens>;

// [0, k), [k, 2k), ... up to `content` tokens.
std::vector<Range> SpansOfEvery(int64_t tokens, int64_t content);

// For each range of code points of `text`, the tokens that overlap it. `token_bytes` are the content tokens' places in
// the text, in order. Errors (INVALID_ARGUMENT): SPAN_OUT_OF_RANGE, SPAN_EMPTY (a range of blanks alone).
absl::StatusOr<std::vector<Range>> TokensOfCodePoints(std::string_view text, std::span<const Range> ranges,
                                                      std::span<const ByteRange> token_bytes);

// The tokens of each sentence; sentences without tokens are left out. Errors: those of SplitSentences.
absl::StatusOr<std::vector<Range>> TokensOfSentences(std::string_view text, std::span<const ByteRange> token_bytes);

// The ranges themselves, checked against the number of tokens. Errors (INVALID_ARGUMENT): SPAN_OUT_OF_RANGE.
absl::StatusOr<std::vector<Range>> CheckedTokenRanges(std::span<const Range> ranges, int64_t content);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_EMBED_SPANS_H_
