// Holds on the ledger what the tokenizer takes for one call.
#ifndef LONGEMBED_SERVER_CORE_TOKENIZER_MEMORY_H_
#define LONGEMBED_SERVER_CORE_TOKENIZER_MEMORY_H_

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/text/tokenizer.h"
#include "server/admission/ledger.h"

namespace longembed {

// The most memory that the tokenizer of one call has taken at once. Released when destroyed. For one thread.
class TokenizerMemory {
 public:
  // `charge` must outlive this object.
  explicit TokenizerMemory(Charge& charge) : charge_(charge) {}
  ~TokenizerMemory() { charge_.Correct(Memory::kTokenizer, 0); }
  TokenizerMemory(const TokenizerMemory&) = delete;
  TokenizerMemory& operator=(const TokenizerMemory&) = delete;

  // Returns the argument of Tokenizer::Tokenize. Its errors are those of Charge::Hold. It must not outlive this object.
  HoldMemory hold() {
    return [this](int64_t bytes) { return Hold(bytes); };
  }

 private:
  absl::Status Hold(int64_t bytes);

  Charge& charge_;
  int64_t held_ = 0;
};

// Tokenizes the text of a request's field. Errors: those of `memory`'s charge; at the field: those of
// Tokenizer::Tokenize, and TOO_MANY_TOKENS if there are more than `limit` tokens.
absl::StatusOr<TokenizedText> TokenizeField(const Tokenizer& tokenizer, std::string_view field, std::string_view text,
                                            int64_t limit, TokenizerMemory& memory);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_CORE_TOKENIZER_MEMORY_H_
