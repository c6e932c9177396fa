// Tests that texts in pieces have the tokens of the whole text (hf_tokenizers/src/pieces.rs). The oracle is the crate
// itself, which gets each text at once.
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "model/text/hf_tokenizers/hf_tokenizers.h"
#include "model/text/utf8.h"

namespace longembed {
namespace {

struct Close {
  void operator()(LongembedHfTokenizer* tokenizer) const { longembed_hf_close(tokenizer); }
};
using Handle = std::unique_ptr<LongembedHfTokenizer, Close>;
using Token = std::tuple<int32_t, uint32_t, uint32_t>;  // (id, begin, end).

Handle Open(const std::string& path, size_t piece_bytes) {
  std::ifstream file(path);
  const std::string json{std::istreambuf_iterator(file), {}};
  LongembedHfTokenizer* tokenizer = nullptr;
  char error[200] = "";
  EXPECT_EQ(longembed_hf_open(json.data(), json.size(), piece_bytes, &tokenizer, error, sizeof(error)), LONGEMBED_HF_OK)
      << path << ": " << error;
  return Handle(tokenizer);
}

// Encodes a text. Offsets start at `base`.
std::vector<Token> Encode(const Handle& tokenizer, std::string_view text, uint32_t base = 0) {
  struct Collected {
    uint32_t base;
    std::vector<Token> tokens;
  } collected{base, {}};
  const auto collect = [](void* context, const int32_t* ids, const uint32_t* begins, const uint32_t* ends,
                          size_t count) {
    auto& [base, tokens] = *static_cast<Collected*>(context);
    for (size_t i = 0; i < count; ++i) tokens.emplace_back(ids[i], base + begins[i], base + ends[i]);
  };
  char error[200] = "";
  EXPECT_EQ(longembed_hf_encode(tokenizer.get(), text.data(), text.size(), SIZE_MAX, nullptr, collect, &collected,
                                error, sizeof(error)),
            LONGEMBED_HF_OK)
      << error;
  return collected.tokens;
}

// Returns a random text with words of many scripts, combining marks, emoji, special tokens, characters that normalizers
// change, and separators of every kind.
std::string RandomText(std::mt19937& random) {
  static const std::vector<std::string> words{"the",
                                              "river",
                                              "bb",
                                              "a",
                                              "Unbelievable",
                                              "mills",
                                              "3.14",
                                              "1234567",
                                              "it's",
                                              "don't",
                                              "[SEP]",
                                              "[MASK]",
                                              "<s>",
                                              "<|endoftext|>",
                                              "e\u0301",
                                              "\u0301",
                                              "\u00e9t\u00e9",
                                              "na\u00efve",
                                              "\u0130stanbul",
                                              "\u1ec7t",
                                              "\u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2",
                                              "\u043f\u0440\u0438\u0432\u0435\u0442",
                                              "\u0439",
                                              "\u05e9\u05dc\u05d5\u05dd",
                                              "\u0633\u0644\u0627\u0645",
                                              "\u0633\u064e",
                                              "\u0600",
                                              "\u0939\u093f\u0928\u094d\u0926\u0940",
                                              "\u0928\u0926",
                                              "\u0e01\u0e33\u0e01",
                                              "\u0e44\u0e17\u0e22",
                                              "\u6771\u4eac",
                                              "\u4e2d\u6587\u5b57\u7b26",
                                              "\u9ebc",
                                              "\ufa1f",
                                              "\u3402",
                                              "\u30ab\u30bf\u30ab\u30ca",
                                              "\u304b\u3099",
                                              "\uff76\uff9e",
                                              "\ud55c\uad6d\uc5b4",
                                              "\u1112\u1161\u11ab",
                                              "\uac00\u11a8",
                                              "\U0001f600",
                                              "\U0001f468\u200d\U0001f469\u200d\U0001f467",
                                              "\ufdfa",
                                              "\ufb01",
                                              "\u00a8",
                                              "\u2019s",
                                              "x\u0308",
                                              "\u200b",
                                              "\ufeff",
                                              "(",
                                              ".",
                                              ",",
                                              "\u3002",
                                              "\uff0c",
                                              "-",
                                              "_",
                                              "#",
                                              "##",
                                              "\u2581",
                                              "\u0120"};
  static const std::vector<std::string> seams{" ",  " ",      " ",      " ",    "  ", "   ", "\n", " \n",
                                              "\t", "\u00a0", "\u3000", "\r\n", "",   "",    ""};
  std::string text;
  const size_t count = random() % 60;
  for (size_t i = 0; i < count; ++i) {
    text += words[random() % words.size()] + seams[random() % seams.size()];
    if (random() % 100 == 0) text += std::string(150, 'x');
  }
  return text;
}

class PiecesTest : public ::testing::TestWithParam<const char*> {
 protected:
  const std::string path_ = std::string(LONGEMBED_GOLDEN_DIR) + GetParam();
  const Handle whole_ = Open(path_, SIZE_MAX);
};

TEST_P(PiecesTest, HaveTheTokensOfTheWhole) {
  const Handle pieces = Open(path_, 1);  // Cuts wherever it can.
  std::mt19937 random(1);
  for (int round = 0; round < 4000; ++round) {
    const std::string text = RandomText(random);
    ASSERT_EQ(Encode(pieces, text), Encode(whole_, text)) << text;
  }
}

TEST_P(PiecesTest, EveryPlaceToCutChangesNothing) {
  std::mt19937 random(2);
  int cuts = 0;
  for (int round = 0; round < 500; ++round) {
    const std::string text = RandomText(random);
    const std::vector<Token> whole = Encode(whole_, text);
    for (size_t at = longembed_hf_cut_after(whole_.get(), text.data(), text.size(), 0); at < text.size();
         at = longembed_hf_cut_after(whole_.get(), text.data(), text.size(), at + 1)) {
      ++cuts;
      ASSERT_FALSE(IsContinuationByte(text[at]));
      EXPECT_EQ(longembed_hf_cut_before(whole_.get(), text.data(), text.size(), at), at);
      std::vector<Token> both = Encode(whole_, std::string_view(text).substr(0, at));
      const std::vector<Token> after = Encode(whole_, std::string_view(text).substr(at), static_cast<uint32_t>(at));
      both.insert(both.end(), after.begin(), after.end());
      ASSERT_EQ(both, whole) << "byte " << at << " of " << text;
    }
  }
  EXPECT_GT(cuts, 500);
}

INSTANTIATE_TEST_SUITE_P(All, PiecesTest,
                         ::testing::Values("/tokenizer/wordpiece.json", "/tokenizer/gpt2.json",
                                           "/../fuzz/tokenizers/unigram.json",
                                           "/../fuzz/tokenizers/byte_level_bpe.json"),
                         [](const auto& info) {
                           const std::string path = info.param;
                           const size_t name = path.rfind('/') + 1;
                           return path.substr(name, path.rfind('.') - name);
                         });

// There are cuts in any script that has blanks, and between ideographs and before punctuation without blanks. Brackets
// belong to added tokens.
TEST(CutsTest, ExistInManyScripts) {
  const Handle wordpiece = Open(std::string(LONGEMBED_GOLDEN_DIR) + "/tokenizer/wordpiece.json", 1);
  for (const std::string text :
       {"one two", "\u043e\u0434\u0438\u043d \u0434\u0432\u0430", "\u03ad\u03bd\u03b1 \u03b4\u03cd\u03bf",
        "\ud558\ub098 \ub458", "\u4e00\u4e8c", "\u0648\u0627\u062d\u062f \u062b\u0644\u0627", "m\u1ed9t \u0111\u00f4i",
        "1,2", "a!;", "\u00e9;b"}) {
    const size_t cut = longembed_hf_cut_after(wordpiece.get(), text.data(), text.size(), 0);
    EXPECT_LT(cut, text.size()) << text;
    EXPECT_EQ(longembed_hf_cut_before(wordpiece.get(), text.data(), text.size(), text.size()), cut) << text;
  }
  for (const std::string text :
       {"", " ", "a", " a", "a ", "ab", "a\u0301 \u0301b", "one  two", "one\ntwo", "1 2", "1[2", "a\u0301,b", "\n,b"}) {
    EXPECT_EQ(longembed_hf_cut_after(wordpiece.get(), text.data(), text.size(), 0), text.size()) << text;
    EXPECT_EQ(longembed_hf_cut_before(wordpiece.get(), text.data(), text.size(), text.size()), 0u) << text;
  }
}

}  // namespace
}  // namespace longembed
