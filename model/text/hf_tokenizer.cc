#include "model/text/hf_tokenizer.h"

#include <fstream>
#include <new>
#include <optional>
#include <sstream>

#include "model/errors/errors.h"
#include "model/text/hf_tokenizers/hf_tokenizers.h"
#include "model/text/utf8.h"

namespace longembed {
namespace {

constexpr size_t kErrorCapacity = 512;
constexpr size_t kTokenizerPieceBytes = 8 << 10;  // Takes one or two MiB of memory. Larger pieces are no faster.

// State that the callbacks of one call share. They must not throw, because exceptions must not unwind through Rust.
struct Collected {
  const HoldMemory& hold;
  absl::Status held;
  TokenizedText tokens;
  bool out_of_memory = false;
};

bool Hold(void* context, size_t bytes) noexcept {
  auto& collected = *static_cast<Collected*>(context);
  try {
    if (collected.hold) collected.held = collected.hold(static_cast<int64_t>(bytes));
  } catch (const std::bad_alloc&) {
    collected.out_of_memory = true;
  }
  return collected.held.ok() && !collected.out_of_memory;
}

void CollectTokens(void* context, const int32_t* ids, const uint32_t* begins, const uint32_t* ends,
                   size_t count) noexcept {
  auto& collected = *static_cast<Collected*>(context);
  TokenizedText& tokens = collected.tokens;
  try {
    tokens.ids.assign(ids, ids + count);
    tokens.ranges.reserve(count);
  } catch (const std::bad_alloc&) {
    collected.out_of_memory = true;
    return;
  }
  for (size_t i = 0; i < count; ++i) tokens.ranges.push_back({begins[i], ends[i]});
}

struct CollectedText {
  std::string text;
  bool out_of_memory = false;
};

void CollectText(void* context, const char* text, size_t length) noexcept {
  auto& collected = *static_cast<CollectedText*>(context);
  try {
    collected.text.assign(text, length);
  } catch (const std::bad_alloc&) {
    collected.out_of_memory = true;
  }
}

class HuggingFaceTokenizer final : public Tokenizer {
 public:
  explicit HuggingFaceTokenizer(LongembedHfTokenizer* handle) : handle_(handle) {}

  absl::StatusOr<TokenizedText> Tokenize(std::string_view text, int64_t enough, const HoldMemory& hold) const override {
    if (const std::optional<size_t> byte = FirstInvalidUtf8Byte(text); byte.has_value()) {
      return InvalidUtf8("text", *byte);
    }
    Collected collected{.hold = hold};
    char error[kErrorCapacity] = "";
    const LongembedHfStatus status =
        longembed_hf_encode(handle_.get(), text.data(), text.size(), static_cast<size_t>(enough), &Hold, &CollectTokens,
                            &collected, error, sizeof(error));
    if (collected.out_of_memory || status == LONGEMBED_HF_OUT_OF_MEMORY) throw std::bad_alloc();
    if (status == LONGEMBED_HF_MEMORY_REFUSED) return collected.held;
    if (status != LONGEMBED_HF_OK) return TokenizerFailed(error);
    return std::move(collected.tokens);
  }

  size_t CutAfter(std::string_view text, size_t at) const override {
    return longembed_hf_cut_after(handle_.get(), text.data(), text.size(), at);
  }
  size_t CutBefore(std::string_view text, size_t at) const override {
    return longembed_hf_cut_before(handle_.get(), text.data(), text.size(), at);
  }

  absl::StatusOr<std::string> TokenText(int32_t id) const override {
    CollectedText collected;
    char error[kErrorCapacity] = "";
    const LongembedHfStatus status =
        longembed_hf_token_text(handle_.get(), id, &CollectText, &collected, error, sizeof(error));
    if (collected.out_of_memory) throw std::bad_alloc();
    if (status != LONGEMBED_HF_OK) return NoSuchToken(error);
    return std::move(collected.text);
  }

  absl::StatusOr<std::string> Decode(std::span<const uint32_t> ids, bool skip_special_tokens) const override {
    CollectedText collected;
    char error[kErrorCapacity] = "";
    const LongembedHfStatus status = longembed_hf_decode(handle_.get(), ids.data(), ids.size(), skip_special_tokens,
                                                         &CollectText, &collected, error, sizeof(error));
    if (collected.out_of_memory) throw std::bad_alloc();
    if (status == LONGEMBED_HF_NO_SUCH_TOKEN) return NoSuchToken(error);
    if (status != LONGEMBED_HF_OK) return TokenizerFailed(error);
    return std::move(collected.text);
  }

  int32_t vocabulary_size() const override { return longembed_hf_vocabulary_size(handle_.get()); }

 private:
  struct Close {
    void operator()(LongembedHfTokenizer* handle) const { longembed_hf_close(handle); }
  };
  const std::unique_ptr<LongembedHfTokenizer, Close> handle_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadHuggingFaceTokenizer(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream content;
  if (!(content << file.rdbuf())) return ModelDirectoryError(path, "cannot be read");
  const std::string json = std::move(content).str();
  LongembedHfTokenizer* handle = nullptr;
  char error[kErrorCapacity] = "";
  const LongembedHfStatus status =
      longembed_hf_open(json.data(), json.size(), kTokenizerPieceBytes, &handle, error, sizeof(error));
  if (status != LONGEMBED_HF_OK) return ModelDirectoryError(path, error);
  return std::make_unique<HuggingFaceTokenizer>(handle);
}

}  // namespace longembed
