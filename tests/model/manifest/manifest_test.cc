#include "model/manifest/manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "model/manifest/sha256.h"

namespace longembed {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

constexpr char kManifest[] = R"(
format_version: 1
name: e5-small-v2
architecture: bert
family: APE
vocabulary_size: 30522
hidden_size: 384
intermediate_size: 1536
layers: 12
attention_heads: 12
head_dim: 32
position_rows: 512
trained_window: 512
trained_window_source: max_seq_length of sentence_bert_config.json
plain_limit: 512
causal: false
pooling: MEAN
add_eos_token: true
special_tokens: {prefix: [101], suffix: [102]}
prompts: {query: "query: ", passage: "passage: "}
input_types: {QUERY: query, DOCUMENT: passage}
default_prompt_name: passage
trained_dimensions: [384, 128]
similarity_function: dot
recommended_extension: '{"windows": {}}'
recommended_multi_vector_extension: '{"windows": {"tokens": 128}}'
recommendation_evidence: {set: qmsum, date: 2026-11-28, nDCG@10: 0.434}
precision: fp32
source: somewhere
license: MIT
exporter: {version: 1}
files: {encoder.pt: abc, tokenizer.json: abd}
)";

std::string Changed(const std::string& from, const std::string& to) {
  const std::string text = absl::StrReplaceAll(kManifest, {{from, to}});
  EXPECT_NE(text, kManifest) << from;
  return text;
}

TEST(ManifestTest, DenseLayersAfterPoolingMayChangeTheSizeOfVectors) {
  EXPECT_EQ(ParseManifest(kManifest, "here")->vector_size, 384);
  const absl::StatusOr<ModelManifest> wider =
      ParseManifest(Changed("[384, 128]", "[512, 128]\nvector_size: 512"), "here");
  ASSERT_TRUE(wider.ok()) << wider.status();
  EXPECT_EQ(wider->vector_size, 512);
  EXPECT_EQ(wider->hidden_size, 384);
  EXPECT_THAT(wider->trained_dimensions, ElementsAre(128, 512));
}

TEST(ManifestTest, SomeLayersMayBeLocal) {
  EXPECT_EQ(ParseManifest(kManifest, "here")->local_layers, 0);
  const absl::StatusOr<ModelManifest> local =
      ParseManifest(Changed("layers: 12", "layers: 12\nlocal_layers: 8\nlocal_window: 64"), "here");
  ASSERT_TRUE(local.ok()) << local.status();
  EXPECT_EQ(local->local_layers, 8);
  EXPECT_EQ(local->local_window, 64);
}

TEST(ManifestTest, ReadsEveryKey) {
  const auto manifest = ParseManifest(kManifest, "here");
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  EXPECT_EQ(manifest->name, "e5-small-v2");
  EXPECT_EQ(manifest->family, Family::kApe);
  EXPECT_EQ(manifest->pooling, Pooling::kMean);
  EXPECT_EQ(manifest->trained_window, 512);
  EXPECT_THAT(manifest->special_prefix, ElementsAre(101));
  EXPECT_THAT(manifest->special_suffix, ElementsAre(102));
  EXPECT_EQ(manifest->prompts.at("query"), "query: ");
  EXPECT_EQ(manifest->input_types.at("DOCUMENT"), "passage");
  EXPECT_THAT(manifest->trained_dimensions, ElementsAre(128, 384));
  EXPECT_EQ(manifest->trained_window_source, "max_seq_length of sentence_bert_config.json");
  EXPECT_TRUE(manifest->add_eos_token);
  EXPECT_EQ(manifest->default_prompt_name, "passage");
  EXPECT_EQ(manifest->similarity_function, "dot");
  EXPECT_EQ(manifest->recommended_extension, R"({"windows": {}})");
  EXPECT_EQ(manifest->recommended_multi_vector_extension, R"({"windows": {"tokens": 128}})");
  EXPECT_THAT(manifest->recommendation_evidence,
              ElementsAre(Pair("date", "2026-11-28"), Pair("nDCG@10", "0.434"), Pair("set", "qmsum")));
}

TEST(ManifestTest, RecommendationsMayBeLeftOut) {
  std::string text;
  for (const absl::string_view line : absl::StrSplit(kManifest, '\n')) {
    if (!absl::StartsWith(line, "recommend")) absl::StrAppend(&text, line, "\n");
  }
  const auto manifest = ParseManifest(text, "here");
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  EXPECT_EQ(manifest->recommended_extension, "");
  EXPECT_EQ(manifest->recommended_multi_vector_extension, "");
  EXPECT_THAT(manifest->recommendation_evidence, IsEmpty());
}

struct BadManifest {
  const char* from;
  const char* to;
  const char* said;
};

class BadManifestTest : public ::testing::TestWithParam<BadManifest> {};

TEST_P(BadManifestTest, IsRefusedWithTheKeyInTheMessage) {
  const auto manifest = ParseManifest(Changed(GetParam().from, GetParam().to), "here");
  ASSERT_FALSE(manifest.ok());
  EXPECT_EQ(manifest.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(manifest.status().message()), HasSubstr(GetParam().said));
  EXPECT_THAT(std::string(manifest.status().message()), HasSubstr("here"));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadManifestTest,
    ::testing::Values(
        BadManifest{"format_version: 1", "format_version: 2", "format_version"},
        BadManifest{"name: e5-small-v2", "nome: x", "name is missing"},
        BadManifest{"license: MIT", "licenses: MIT", "licenses is unknown"},
        BadManifest{"license: MIT", "license: MIT\nlicense: BSD", "license appears twice"},
        BadManifest{"version: 1}", "version: 1, version: 2}", "exporter.version appears twice"},
        BadManifest{"prefix: [101]", "prefix: [0145]", "special_tokens.prefix"},
        BadManifest{"causal: false", "causal: no", "causal must be true or false"},
        BadManifest{"source: somewhere", "source:", "source is empty"},
        BadManifest{"family: APE", "family: ROPE\nrotary_dim: 32\nrotary_base: .nan", "rotary_base must be a number"},
        BadManifest{"family: APE", "family: ROPE\nrotary_dim: 32\nrotary_base: inf", "rotary_base must be a number"},
        BadManifest{"family: APE", "family: ROPE\nrotary_dim: 32\nrotary_base: 1", "rotary_base must be above 1"},
        BadManifest{"family: APE", "family: ROPE\nrotary_dim: 32\nrotary_base: 1e4\nrotary_factor: 0", "rotary_factor"},
        BadManifest{"layers: 12", "layers: 12\nlocal_layers: 13\nlocal_window: 64", "local_layers"},
        BadManifest{"layers: 12", "layers: 12\nlocal_layers: 8", "local_window is missing"},
        BadManifest{"layers: 12", "layers: 12\nlocal_layers: 8\nlocal_window: -1", "local_window"},
        BadManifest{"[384, 128]", "[384, 128]\nvector_size: 512", "trained_dimensions"},
        BadManifest{"[384, 128]", "[384, 128]\nvector_size: 0", "vector_size"},
        BadManifest{"family: APE", "family: ALIBI", "family must be one of APE, ROPE, not ALIBI"},
        BadManifest{"default_prompt_name: passage", "default_prompt_name: document",
                    "default_prompt_name names no prompt"},
        BadManifest{"similarity_function: dot", "similarity_function: jaccard", "similarity_function must be one of"},
        BadManifest{"add_eos_token: true", "add_eos_token: 1", "add_eos_token must be true or false"},
        BadManifest{"hidden_size: 384", "hidden_size: many", "hidden_size"},
        BadManifest{"layers: 12", "layers: 0", "layers must be a whole number from 1"},
        BadManifest{"plain_limit: 512", "plain_limit: 513", "plain_limit"},
        BadManifest{"prefix: [101]", "prefix: [30522]", "special_tokens.prefix"},
        BadManifest{"QUERY: query", "QUERY: quest", "quest"}, BadManifest{"[384, 128]", "[128]", "trained_dimensions"},
        BadManifest{R"('{"windows": {"tokens": 128}}')", "{windows: {}}",
                    "recommended_multi_vector_extension must be a string"},
        BadManifest{"set: qmsum", "set: [qmsum]", "recommendation_evidence"},
        BadManifest{"{set: qmsum", "[{set: qmsum", "here"},
        BadManifest{"name: e5-small-v2", "name: ''", "name is empty"},
        BadManifest{"{encoder.pt: abc, tokenizer.json: abd}", "{}", "files has no SHA-256 sum of encoder.pt"},
        BadManifest{", tokenizer.json: abd", "", "files has no SHA-256 sum of tokenizer.json"},
        BadManifest{"pooling: MEAN", "pooling: MEAN\nsparse_head: SPLADE_MAX",
                    "files has no SHA-256 sum of sparse_head.pt"},
        BadManifest{"files: {encoder.pt: abc", "files: [", "here"}));

// Returns a rotary model with two pairs and this rotary_scaling.
absl::StatusOr<ModelManifest> Scaled(const std::string& scaling) {
  const std::string rope = absl::StrCat("family: ROPE\nrotary_dim: 4\nrotary_base: 1e4\nrotary_scaling: ", scaling);
  return ParseManifest(absl::StrReplaceAll(Changed("family: APE", rope), {{"position_rows: 512\n", ""}}), "here");
}

TEST(ManifestTest, HoldsAScalingForEachRotaryPair) {
  const auto manifest =
      Scaled("{kind: longrope, factors: [1, 1.5], long_factors: [2.0e+0, 6.5], long_from: 100, amplitude: 1.25}");
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  ASSERT_TRUE(manifest->rotary_scaling.has_value());
  EXPECT_EQ(manifest->rotary_scaling->kind, "longrope");
  EXPECT_THAT(manifest->rotary_scaling->factors, ElementsAre(1, 1.5));
  EXPECT_THAT(manifest->rotary_scaling->long_factors, ElementsAre(2, 6.5));
  EXPECT_EQ(manifest->rotary_scaling->long_from, 100);
  EXPECT_EQ(manifest->rotary_scaling->amplitude, 1.25);
}

TEST(ManifestTest, RefusesAScalingThatIsNotOneForEachPair) {
  const std::pair<const char*, const char*> cases[] = {
      {"{kind: linear, factors: [1, 2]}", "rotary_scaling.kind must be llama3, yarn or longrope"},
      {"{kind: yarn}", "rotary_scaling.factors must hold 2"},
      {"{kind: yarn, factors: [1, 2, 3]}", "rotary_scaling.factors must hold 2"},
      {"{kind: yarn, factors: [1, 0]}", "rotary_scaling.factors must be a number"},
      {"{kind: yarn, factors: [1, .nan]}", "rotary_scaling.factors must be a number"},
      {"{kind: yarn, factors: [1, 2], long_factors: [1, 2]}", "rotary_scaling.long_factors must hold 2"},
      {"{kind: longrope, factors: [1, 2], long_factors: [1], long_from: 9}", "rotary_scaling.long_factors must hold 2"},
      {"{kind: longrope, factors: [1, 2], long_factors: [1, 2]}", "rotary_scaling.long_from must be at least 1"},
      {"{kind: llama3, factors: [1, 2], amplitude: 0}", "rotary_scaling.amplitude"},
      {"{kind: llama3, factors: [1, 2], extra: 0}", "rotary_scaling.extra is unknown"}};
  for (const auto& [scaling, said] : cases) {
    const auto manifest = Scaled(scaling);
    ASSERT_FALSE(manifest.ok()) << scaling;
    EXPECT_THAT(std::string(manifest.status().message()), HasSubstr(said));
  }
}

TEST(ManifestTest, RefusesContentOtherThanAMapping) {
  EXPECT_FALSE(ParseManifest("", "here").ok());
  EXPECT_FALSE(ParseManifest("- a", "here").ok());
}

TEST(ManifestTest, ComparesFilesWithTheirSums) {
  const std::filesystem::path directory = std::filesystem::path(::testing::TempDir()) / "verify_files";
  std::filesystem::create_directories(directory);
  std::ofstream(directory / "encoder.pt") << "abc";
  ModelManifest manifest;
  // The hash is from FIPS 180-2, appendix B.1.
  manifest.file_sha256 = {{"encoder.pt", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}};
  EXPECT_TRUE(VerifyFiles(manifest, directory).ok());
  std::ofstream(directory / "encoder.pt") << "abd";
  EXPECT_THAT(std::string(VerifyFiles(manifest, directory).message()), HasSubstr("export the model again"));
  manifest.file_sha256 = {{"missing", ""}};
  EXPECT_FALSE(VerifyFiles(manifest, directory).ok());
  manifest.file_sha256 = {{"../encoder.pt", ""}};
  EXPECT_FALSE(VerifyFiles(manifest, directory).ok());
}

TEST(Sha256Test, MatchesThePublishedVectors) {
  EXPECT_EQ(Sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

}  // namespace
}  // namespace longembed
