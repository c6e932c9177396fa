#include "model/embed/spans.h"

#include <algorithm>

#include "model/errors/errors.h"
#include "model/text/sentences.h"
#include "model/text/utf8.h"
#include "system/return_if_error.h"

namespace longembed {
namespace {

// Returns the tokens that share at least one byte with `bytes`. Tokens are in order, so the result is a contiguous
// range.
Range TokensOf(ByteRange bytes, std::span<const ByteRange> token_bytes) {
  const auto first = std::partition_point(token_bytes.begin(), token_bytes.end(),
                                          [&](ByteRange token) { return token.end <= bytes.begin; });
  const auto last =
      std::partition_point(first, token_bytes.end(), [&](ByteRange token) { return token.begin < bytes.end; });
  return {static_cast<int32_t>(first - token_bytes.begin()), static_cast<int32_t>(last - token_bytes.begin())};
}

absl::Status CheckRange(size_t index, Range range, int64_t size, std::string_view unit) {
  const bool good = range.start >= 0 && range.start < range.end && range.end <= size;
  return good ? absl::OkStatus() : SpanOutOfRange(index, range.start, range.end, unit, size);
}

}  // namespace

std::vector<Range> SpansOfEvery(int64_t tokens, int64_t content) {
  std::vector<Range> spans;
  for (int64_t start = 0; start < content; start += tokens) {
    spans.push_back({static_cast<int32_t>(start), static_cast<int32_t>(std::min(start + tokens, content))});
  }
  return spans;
}

absl::StatusOr<std::vector<Range>> TokensOfCodePoints(std::string_view text, std::span<const Range> ranges,
                                                      std::span<const ByteRange> token_bytes) {
  const CodePointIndex code_points(text);
  std::vector<Range> spans;
  spans.reserve(ranges.size());
  for (size_t i = 0; i < ranges.size(); ++i) {
    RETURN_IF_ERROR(CheckRange(i, ranges[i], code_points.size(), "code points"));
    const ByteRange asked{static_cast<uint32_t>(code_points.ByteOf(ranges[i].start)),
                          static_cast<uint32_t>(code_points.ByteOf(ranges[i].end))};
    spans.push_back(TokensOf(asked, token_bytes));
    if (spans.back().size() <= 0) return SpanEmpty(i);
  }
  return spans;
}

absl::StatusOr<std::vector<Range>> TokensOfSentences(std::string_view text, std::span<const ByteRange> token_bytes) {
  std::vector<Range> spans;
  RETURN_IF_ERROR(ForEachSentence(text, [&](ByteRange sentence) {
    const Range tokens = TokensOf(sentence, token_bytes);
    if (tokens.size() > 0) spans.push_back(tokens);
  }));
  return spans;
}

absl::StatusOr<std::vector<Range>> CheckedTokenRanges(std::span<const Range> ranges, int64_t content) {
  for (size_t i = 0; i < ranges.size(); ++i) {
    RETURN_IF_ERROR(CheckRange(i, ranges[i], content, "tokens"));
  }
  return std::vector<Range>(ranges.begin(), ranges.end());
}

}  // namespace longembed
