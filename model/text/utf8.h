// UTF-8 as RFC 3629 has it. Stateless: any thread.
#ifndef LONGEMBED_MODEL_TEXT_UTF8_H_
#define LONGEMBED_MODEL_TEXT_UTF8_H_

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace longembed {

// Whether the byte of a well-formed text stands within a code point, not at its beginning.
inline bool IsContinuationByte(char byte) { return (static_cast<unsigned char>(byte) & 0xc0) == 0x80; }

// Returns the offset of the first ill-formed sequence: overlong forms, surrogates and code points beyond U+10FFFF
// included. nullopt: the text is well formed.
std::optional<size_t> FirstInvalidUtf8Byte(std::string_view text);

// The text with each run of bytes that is none in UTF-8 replaced by U+FFFD.
std::string ReplaceInvalidUtf8(std::string_view text);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_TEXT_UTF8_H_
