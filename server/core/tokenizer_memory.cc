#include "server/core/tokenizer_memory.h"

#include "model/errors/errors.h"
#include "server/errors/errors.h"

namespace longembed {

absl::Status TokenizerMemory::Hold(int64_t bytes) {
  if (bytes <= held_) return absl::OkStatus();
  const absl::Status status = charge_.Hold(Memory::kTokenizer, bytes);
  if (status.ok()) held_ = bytes;
  return status;
}

absl::StatusOr<TokenizedText> TokenizeField(const Tokenizer& tokenizer, std::string_view field, std::string_view text,
                                            int64_t limit, TokenizerMemory& memory) {
  absl::StatusOr<TokenizedText> tokens = tokenizer.Tokenize(text, limit, memory.hold());
  if (absl::IsResourceExhausted(tokens.status())) return tokens;
  if (!tokens.ok()) return AtField(tokens.status(), field);
  const auto count = static_cast<int64_t>(tokens->ids.size());
  if (count > limit) return AtField(TooManyTokens(count, limit), field);
  return tokens;
}

}  // namespace longembed
