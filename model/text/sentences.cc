#include "model/text/sentences.h"

#include <new>
#include <optional>

#include "model/errors/errors.h"
#include "model/text/hf_tokenizers/hf_tokenizers.h"
#include "model/text/utf8.h"

namespace longembed {
namespace {

struct Reader {
  absl::FunctionRef<void(ByteRange)> each;
  bool out_of_memory = false;
};

// Must not throw, because exceptions must not unwind through Rust.
void PassRanges(void* context, const uint32_t* begins, const uint32_t* ends, size_t count) noexcept {
  auto& reader = *static_cast<Reader*>(context);
  if (reader.out_of_memory) return;
  try {
    for (size_t i = 0; i < count; ++i) reader.each({begins[i], ends[i]});
  } catch (const std::bad_alloc&) {
    reader.out_of_memory = true;
  }
}

}  // namespace

absl::Status ForEachSentence(std::string_view text, absl::FunctionRef<void(ByteRange)> each) {
  if (const std::optional<size_t> byte = FirstInvalidUtf8Byte(text); byte.has_value())
    return InvalidUtf8("text", *byte);
  Reader reader{.each = each};
  char error[256] = "";
  const LongembedHfStatus status =
      longembed_hf_sentences(text.data(), text.size(), &PassRanges, &reader, error, sizeof(error));
  if (reader.out_of_memory) throw std::bad_alloc();
  return status == LONGEMBED_HF_OK ? absl::OkStatus() : TokenizerFailed(error);
}

}  // namespace longembed
