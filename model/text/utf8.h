// UTF-8 according to RFC 3629. Stateless functions that any thread can call.
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

// Returns the byte offset of each code point of well-formed UTF-8, and then the size of the text. REQUIRES: the text is
// shorter than 4 GiB.
std::vector<uint32_t> CodePointOffsets(std::string_view text);

// Returns the offset of the first ill-formed byte sequence, or nullopt if the text is well formed. Overlong forms,
// surrogates and code points beyond U+10FFFF are ill-formed.
std::optional<size_t> FirstInvalidUtf8Byte(std::string_view text);

// Returns the text with each run of invalid bytes replaced by U+FFFD.
std::string ReplaceInvalidUtf8(std::string_view text);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_TEXT_UTF8_H_
