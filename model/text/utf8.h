// UTF-8 according to RFC 3629. Stateless functions and constant objects that any thread can use.
#ifndef LONGEMBED_MODEL_TEXT_UTF8_H_
#define LONGEMBED_MODEL_TEXT_UTF8_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace longembed {

// Returns whether a byte of well-formed UTF-8 is inside a code point, not at its beginning.
inline bool IsContinuationByte(char byte) { return (static_cast<unsigned char>(byte) & 0xc0) == 0x80; }

// Returns the offset of the first ill-formed byte sequence, or nullopt if the text is well formed. Overlong forms,
// surrogates and code points beyond U+10FFFF are ill-formed.
std::optional<size_t> FirstInvalidUtf8Byte(std::string_view text);

// Returns the text with each run of invalid bytes replaced by U+FFFD.
std::string ReplaceInvalidUtf8(std::string_view text);

// Converts places in a text between bytes and code points. Takes a 64th of the text's memory.
class CodePointIndex {
 public:
  // `text`, which is well-formed UTF-8, must outlive the index.
  explicit CodePointIndex(std::string_view text);

  // Returns the number of code points of the text.
  int64_t size() const { return size_; }
  // Returns how many code points begin before byte `at`. REQUIRES: at <= the text's bytes.
  int64_t Before(size_t at) const;
  // Returns the byte at which code point `index` begins, or the text's bytes if `index` is size(). REQUIRES: 0 <= index
  // <= size().
  size_t ByteOf(int64_t index) const;

 private:
  static constexpr size_t kBlock = 256;

  const std::string_view text_;
  std::vector<uint32_t> before_;  // [i]: number of code points that begin before byte i * kBlock.
  int64_t size_ = 0;
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_TEXT_UTF8_H_
