#include "tests/testing/fake_tokenizer.h"

#include <algorithm>
#include <new>

#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"
#include "system/return_if_error.h"

namespace longembed {

absl::StatusOr<TokenizedText> FakeTokenizer::Tokenize(std::string_view text, int64_t /*enough*/,
                                                      const HoldMemory& hold) const {
  if (hold) RETURN_IF_ERROR(hold(kBytesPerByte * std::ssize(text)));
  if (!no_memory_.empty() && text.find(no_memory_) != std::string_view::npos) throw std::bad_alloc();
  TokenizedText result;
  size_t begin = 0;
  while (begin < text.size()) {
    const size_t word = text.find_first_not_of(' ', begin);
    if (word == std::string_view::npos) break;
    const size_t end = std::min(text.find(' ', word), text.size());
    result.ids.push_back(static_cast<int32_t>(std::min<size_t>(10 + end - word, 99)));
    result.ranges.push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(end)});
    begin = end;
  }
  return result;
}

namespace {

bool IsCut(std::string_view text, size_t at) { return text[at] == ' ' && text[at - 1] != ' '; }

}  // namespace

size_t FakeTokenizer::CutAfter(std::string_view text, size_t at) const {
  at = std::max<size_t>(at, 1);
  while (at < text.size() && !IsCut(text, at)) ++at;
  return std::min(at, text.size());
}

size_t FakeTokenizer::CutBefore(std::string_view text, size_t at) const {
  at = text.empty() ? 0 : std::min(at, text.size() - 1);
  while (at > 0 && !IsCut(text, at)) --at;
  return at;
}

absl::StatusOr<std::string> FakeTokenizer::TokenText(int32_t id) const { return absl::StrCat("<", id, ">"); }

absl::StatusOr<std::string> FakeTokenizer::Decode(std::span<const uint32_t> ids, bool skip_special_tokens) const {
  std::string text;
  for (const uint32_t id : ids) {
    if (id >= 100) return NoSuchToken(absl::StrCat("no token has id ", id));
    if (!skip_special_tokens || id > 2) absl::StrAppend(&text, "<", id, ">");
  }
  return text;
}

ModelManifest FakeManifest() {
  ModelManifest manifest;
  manifest.name = "fake";
  manifest.architecture = "fake";
  manifest.vocabulary_size = 100;
  manifest.hidden_size = manifest.vector_size = 4;
  manifest.intermediate_size = 16;
  manifest.layers = 2;
  manifest.attention_heads = 2;
  manifest.key_value_heads = 2;
  manifest.head_dim = 2;
  manifest.position_rows = 16;
  manifest.trained_window = 16;
  manifest.plain_limit = 16;
  manifest.special_prefix = {1};
  manifest.special_suffix = {2};
  manifest.prompts = {{"query", "query: "}, {"passage", "passage: "}};
  manifest.input_types = {{"QUERY", "query"}, {"DOCUMENT", "passage"}};
  manifest.trained_dimensions = {2, 4};
  manifest.precision = "fp32";
  manifest.file_sha256 = {{"encoder.pt", "00"}};
  return manifest;
}

ModelManifest FakeRopeManifest() {
  ModelManifest manifest = FakeManifest();
  manifest.name = "fake-rope";
  manifest.family = Family::kRope;
  manifest.position_rows = 0;
  manifest.head_dim = 8;
  manifest.rotary_dim = 8;
  manifest.rotary_base = 10000;
  return manifest;
}

}  // namespace longembed
