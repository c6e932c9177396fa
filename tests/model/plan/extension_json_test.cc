#include "model/plan/extension_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "tests/testing/fake_tokenizer.h"

namespace longembed {
namespace {

using ::testing::HasSubstr;

std::string Canonical(const std::string& text) {
  const absl::StatusOr<Extension> extension = ParseExtension(text);
  EXPECT_TRUE(extension.ok()) << text << ": " << extension.status();
  return extension.ok() ? CanonicalJson(FakeRopeManifest(), *extension).dump() : "";
}

TEST(ExtensionJsonTest, EveryFieldIsRead) {
  EXPECT_EQ(Canonical("{}"), "{}");
  EXPECT_EQ(
      Canonical(R"({"when": "ALWAYS", "windows": {"tokens": 9, "overlap": 2, "last": "SHORT", "aggregation": "MAX"},
                          "yarn": {"factor": 2.5, "beta_fast": 2, "beta_slow": 0.5}, "resonance": true,
                          "attention_log_scaling": true, "attention_temperature": 0.5})"),
      R"({"attention_log_scaling":true,"attention_temperature":0.5,"resonance":true,"when":"ALWAYS","windows":{"aggregation":"MAX",)"
      R"("last":"SHORT","overlap":2,"tokens":9},"yarn":{"beta_fast":2.0,"beta_slow":0.5,"factor":2.5}})");
  EXPECT_EQ(Canonical(R"({"self_extend": {"group": 3}})"),
            R"({"self_extend":{"group":3,"neighbor_window":"adaptive"},"when":"LONG"})");
  EXPECT_EQ(Canonical(R"({"attention_calibration": {"basket": 64}})"),
            R"({"attention_calibration":{"basket":64,"layers":0.5,"strength":0.5},"when":"LONG"})");
  EXPECT_EQ(Canonical(R"({"attentionCalibration": {"strength": 0}})"), "{}");
  EXPECT_EQ(Canonical(R"({"ntk": {"base": 20000}})"), R"({"ntk":{"base":20000.0},"when":"LONG"})");
}

TEST(ExtensionJsonTest, QuotedValuesAndCamelCaseAreTheSame) {
  EXPECT_EQ(Canonical(R"({"selfExtend": {"neighborWindow": "4"}, "attentionLogScaling": "true"})"),
            Canonical(R"({"self_extend": {"neighbor_window": 4}, "attention_log_scaling": true})"));
}

TEST(ExtensionJsonTest, UnknownFieldsAndValuesAreRefusedByName) {
  for (const auto& [text, said] : {
           std::pair{"", "is not a JSON object"},
           std::pair{"[]", "is not a JSON object"},
           std::pair{"{", "is not a JSON object"},
           std::pair{R"({"windows": {"tokenz": 3}})", "windows.tokenz: is unknown; known here: aggregation, last"},
           std::pair{R"({"windoes": {}})", "windoes: is unknown"},
           std::pair{R"({"windows": {"tokens": 1, "tokens": 2}})", "tokens appears twice"},
           std::pair{R"({"selfExtend": {}, "self_extend": {}})", "self_extend appears twice"},
           std::pair{R"({"windows": {"tokens": 1.5}})", "windows.tokens: must be a whole number"},
           std::pair{R"({"windows": {"tokens": -1}})", "windows.tokens: must be a whole number"},
           std::pair{R"({"windows": {"overlap": "many"}})", "windows.overlap: must be a number"},
           std::pair{R"({"windows": {"last": "LONG"}})", "windows.last: must be one of BACK_EXTENDED, SHORT"},
           std::pair{R"({"windows": 3})", "windows: must be an object"},
           std::pair{R"({"yarn": {"factor": {}}})", "yarn.factor: must be a number"},
           std::pair{R"({"resonance": 1})", "resonance: must be true or false"},
           std::pair{R"({"grouped": {}, "yarn": {}})", "cannot be combined with grouped"},
           std::pair{R"({"profile": "x"})", "refers to another extension"},
           std::pair{R"({"recommended": {}})", "refers to another extension"},
       }) {
    EXPECT_THAT(std::string(ParseExtension(text).status().message()), HasSubstr(said)) << text;
  }
}

TEST(ExtensionJsonTest, DeepNestingIsRefused) {
  const std::string open(200000, '[');
  EXPECT_FALSE(ParseExtension("{\"windows\": " + open).ok());
  EXPECT_FALSE(ParseExtension("{\"windows\": " + open + std::string(200000, ']') + "}").ok());
}

// Everything that CanonicalJson writes must be readable, except for the value "adaptive". It is replaced by a number.
TEST(ExtensionJsonTest, CanonicalJsonIsReadAgain) {
  ForEachMethod([](auto method) {
    const Extension extension{.positions = method, .attention_log_scaling = true};
    nlohmann::json written = CanonicalJson(FakeRopeManifest(), extension);
    for (auto& [name, value] : written[method.kName].items()) {
      if (value == "adaptive") value = 2;
    }
    EXPECT_EQ(nlohmann::json::parse(Canonical(written.dump())), written);
  });
}

}  // namespace
}  // namespace longembed
