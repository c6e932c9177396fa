#include "model/text/utf8.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace longembed {
namespace {

// The table in section 4 of RFC 3629: for a first byte, the length of the sequence and the allowed second bytes.
struct Lead {
  size_t length;  // 0: no sequence begins with this byte.
  unsigned char least_second = 0x80;
  unsigned char most_second = 0xbf;
};

Lead LeadOf(unsigned char byte) {
  if (byte < 0x80) return {1};
  if (byte < 0xc2) return {0};
  if (byte < 0xe0) return {2};
  if (byte == 0xe0) return {3, 0xa0, 0xbf};
  if (byte == 0xed) return {3, 0x80, 0x9f};
  if (byte < 0xf0) return {3};
  if (byte == 0xf0) return {4, 0x90, 0xbf};
  if (byte < 0xf4) return {4};
  if (byte == 0xf4) return {4, 0x80, 0x8f};
  return {0};
}

bool WellFormed(std::string_view sequence, const Lead& lead) {
  if (lead.length == 0 || sequence.size() < lead.length) return false;
  if (lead.length == 1) return true;
  const auto second = static_cast<unsigned char>(sequence[1]);
  if (second < lead.least_second || second > lead.most_second) return false;
  return std::all_of(sequence.begin() + 2, sequence.begin() + static_cast<std::ptrdiff_t>(lead.length),
                     &IsContinuationByte);
}

constexpr size_t kWord = sizeof(uint64_t);

bool IsAsciiWord(const char* text) {
  uint64_t word = 0;
  std::memcpy(&word, text, kWord);
  return (word & 0x8080808080808080) == 0;
}

size_t SkipAscii(std::string_view text, size_t position) {
  while (position + kWord <= text.size() && IsAsciiWord(text.data() + position)) position += kWord;
  return position;
}

}  // namespace

std::optional<size_t> FirstInvalidUtf8Byte(std::string_view text) {
  size_t position = 0;
  while ((position = SkipAscii(text, position)) < text.size()) {
    const Lead lead = LeadOf(static_cast<unsigned char>(text[position]));
    if (!WellFormed(text.substr(position), lead)) return position;
    position += lead.length;
  }
  return std::nullopt;
}

std::string ReplaceInvalidUtf8(std::string_view text) {
  std::string valid;
  while (const std::optional<size_t> bad = FirstInvalidUtf8Byte(text)) {
    valid.append(text.substr(0, *bad)).append("\xEF\xBF\xBD");
    size_t end = *bad + 1;
    while (end < text.size() && IsContinuationByte(text[end])) ++end;
    text.remove_prefix(end);
  }
  return valid.append(text);
}

namespace {

// Returns how many code points begin in a part of a text.
int64_t CountBegins(std::string_view part) {
  return std::count_if(part.begin(), part.end(), [](char byte) { return !IsContinuationByte(byte); });
}

}  // namespace

CodePointIndex::CodePointIndex(std::string_view text) : text_(text) {
  before_.reserve(text.size() / kBlock + 1);
  for (size_t begin = 0; begin <= text.size(); begin += kBlock) {
    before_.push_back(static_cast<uint32_t>(size_));
    size_ += CountBegins(text.substr(begin, kBlock));
  }
}

int64_t CodePointIndex::Before(size_t at) const {
  const size_t block = at / kBlock;
  return before_[block] + CountBegins(text_.substr(block * kBlock, at % kBlock));
}

size_t CodePointIndex::ByteOf(int64_t index) const {
  if (index == size_) return text_.size();
  const auto next = std::upper_bound(before_.begin(), before_.end(), index);
  const size_t block = static_cast<size_t>(next - before_.begin()) - 1;
  int64_t left = index - before_[block];
  size_t at = block * kBlock;
  while (IsContinuationByte(text_[at]) || left-- > 0) ++at;
  return at;
}

}  // namespace longembed
