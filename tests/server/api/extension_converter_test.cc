#include "server/api/longembed/extension_converter.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "model/errors/errors.h"
#include "model/plan/recommendations.h"
#include "tests/testing/fake_tokenizer.h"

namespace longembed {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using v1::EmbedOptions;

v1::Extension Parse(const std::string& json) {
  v1::Extension extension;
  EXPECT_TRUE(google::protobuf::util::JsonStringToMessage(json, &extension).ok()) << json;
  return extension;
}

// An invalid extension, the family of its model, and the field and the message of the error. Both models have Lo 16 and
// 2 special tokens.
struct Bad {
  const char* json;
  Family family;
  const char* field;
  const char* said;
};

struct NumberNames {
  std::set<std::string>& names;

  template <typename T>
  void Number(const char* name, const T&) {
    names.insert(name);
  }
};

constexpr Family kApe = Family::kApe, kRope = Family::kRope;

TEST(ExtensionConverterTest, EveryBadExtensionIsRefusedByName) {
  const Profiles profiles{{"rope", Extension{.positions = Yarn{}}}};
  for (const Bad& bad : {
           // Methods that the family does not support.
           Bad{R"({"ntk": {"base": 20000}})", kApe, "ntk", "its methods: windows, grouped, recurrent, interpolation"},
           Bad{R"({"ntk_dynamic": {}})", kApe, "ntk_dynamic", "is not available for fake"},
           Bad{R"({"ntk_by_parts": {}})", kApe, "ntk_by_parts", "a model of family APE"},
           Bad{R"({"yarn": {}})", kApe, "yarn", "is not available"},
           Bad{R"({"self_extend": {}})", kApe, "self_extend", "is not available"},
           Bad{R"({"resonance": true})", kApe, "resonance", "is not available"},
           Bad{R"({"profile": "rope"})", kApe, "profile", "this model does not support the profile \"rope\": yarn"},
           // Bad numbers: zero, negative, not a number, infinite, huge.
           Bad{R"({"grouped": {"factor": 0}})", kApe, "grouped.factor", "is 0; it must be 1 to 65536"},
           Bad{R"({"grouped": {"factor": 65537}})", kApe, "grouped.factor", "is 65537"},
           Bad{R"({"interpolation": {"factor": 0.5}})", kApe, "interpolation.factor", "is 0.5"},
           Bad{R"({"interpolation": {"factor": 0}})", kRope, "interpolation.factor", "is 0;"},
           Bad{R"({"interpolation": {"factor": -2}})", kApe, "interpolation.factor", "is -2"},
           Bad{R"({"interpolation": {"factor": "NaN"}})", kApe, "interpolation.factor", "is nan"},
           Bad{R"({"interpolation": {"factor": "Infinity"}})", kRope, "interpolation.factor", "is inf"},
           Bad{R"({"interpolation": {"factor": 1e300}})", kRope, "interpolation.factor", "is 1e+300"},
           Bad{R"({"ntk": {}})", kRope, "ntk", "neither base nor factor"},
           Bad{R"({"ntk": {"base": 20000, "factor": 2}})", kRope, "ntk", "both base and factor"},
           Bad{R"({"ntk": {"base": 1}})", kRope, "ntk.base", "above 1"},
           Bad{R"({"ntk": {"base": 0}})", kRope, "ntk.base", "is 0"},
           Bad{R"({"ntk": {"base": -10000}})", kRope, "ntk.base", "is -10000"},
           Bad{R"({"ntk": {"base": "NaN"}})", kRope, "ntk.base", "is nan"},
           Bad{R"({"ntk": {"base": 1e13}})", kRope, "ntk.base", "is 1e+13"},
           Bad{R"({"ntk": {"factor": 0.9}})", kRope, "ntk.factor", "is 0.9"},
           Bad{R"({"ntk_dynamic": {"factor": 0}})", kRope, "ntk_dynamic.factor", "is 0"},
           Bad{R"({"ntk_dynamic": {"factor": "NaN"}})", kRope, "ntk_dynamic.factor", "is nan"},
           Bad{R"({"ntk_by_parts": {"factor": -1}})", kRope, "ntk_by_parts.factor", "is -1"},
           Bad{R"({"ntk_by_parts": {"beta_fast": 0}})", kRope, "ntk_by_parts.beta_fast", "is 0"},
           Bad{R"({"yarn": {"factor": 0}})", kRope, "yarn.factor", "is 0"},
           Bad{R"({"yarn": {"beta_fast": "NaN"}})", kRope, "yarn.beta_fast", "is nan"},
           Bad{R"({"yarn": {"beta_slow": -1}})", kRope, "yarn.beta_slow", "is -1"},
           Bad{R"({"yarn": {"beta_fast": 2, "beta_slow": 2}})", kRope, "yarn.beta_fast", "above beta_slow, 2"},
           Bad{R"({"yarn": {"beta_fast": 9, "beta_slow": 8}})", kRope, "yarn.beta_slow",
               "is 8; it must be 1e-06 to 2.54648"},
           Bad{R"({"ntk_by_parts": {"beta_fast": 0.001, "beta_slow": 0.0001}})", kRope, "ntk_by_parts.beta_fast",
               "is 0.001; it must be 0.00254648 to"},
           Bad{R"({"self_extend": {"group": 0}})", kRope, "self_extend.group", "is 0"},
           Bad{R"({"self_extend": {"group": 1}})", kRope, "self_extend.group", "is 1; it must be 2"},
           Bad{R"({"self_extend": {"group": 100000}})", kRope, "self_extend.group", "is 100000"},
           Bad{R"({"self_extend": {"neighbor_window": 0}})", kRope, "self_extend.neighbor_window", "1 to 15"},
           Bad{R"({"self_extend": {"neighbor_window": 16}})", kRope, "self_extend.neighbor_window", "is 16"},
           Bad{R"({"shifted_rotary": {}})", kApe, "shifted_rotary", "is not available"},
           Bad{R"({"shifted_rotary": {"shift_from": 17}})", kRope, "shifted_rotary.shift_from", "1 to 16"},
           Bad{R"({"shifted_rotary": {"shift_from": 8, "local_window": 8}})", kRope, "shifted_rotary.local_window",
               "is 8; it must be below shift_from, 8"},
           // Bad windows.
           Bad{R"({"windows": {"tokens": 0}})", kApe, "windows.tokens", "is 0"},
           Bad{R"({"windows": {"tokens": 2}})", kApe, "windows.tokens", "must be at least 3"},
           Bad{R"({"windows": {"tokens": 17}})", kApe, "windows.tokens", "may have at most 16"},
           Bad{R"({"windows": {"tokens": 33}, "grouped": {"factor": 2}})", kApe, "windows.tokens", "at most 32"},
           Bad{R"({"windows": {"tokens": 4294967295}, "recurrent": {}})", kApe, "windows.tokens", "is 4294967295"},
           Bad{R"({"windows": {"tokens": 50}, "self_extend": {"group": 3, "neighbor_window": 8}})", kRope,
               "windows.tokens", "at most 32"},
           Bad{R"({"windows": {"tokens": 10, "overlap": 8}})", kApe, "windows.overlap",
               "is 8; a window has room for 8"},
           Bad{R"({"windows": {"overlap": 4000000000}})", kApe, "windows.overlap", "is 4000000000"},
           Bad{R"({"windows": {"last": 7}})", kApe, "windows.last", "is 7"},
           Bad{R"({"windows": {"aggregation": 9}})", kApe, "windows.aggregation", "is 9"},
           Bad{R"({"when": 5})", kApe, "when", "is 5"},
           Bad{R"({"attention_temperature": 0})", kApe, "attention_temperature", "is 0; it must be 0.1 to 10"},
           Bad{R"({"attention_temperature": 11})", kRope, "attention_temperature", "is 11"},
           Bad{R"({"attention_temperature": "NaN"})", kRope, "attention_temperature", "is nan"},
           Bad{R"({"attention_calibration": {"strength": 1.5}})", kApe, "attention_calibration.strength",
               "is 1.5; it must be 0 to 1"},
           Bad{R"({"attention_calibration": {"strength": "NaN"}})", kRope, "attention_calibration.strength", "is nan"},
           Bad{R"({"attention_calibration": {"basket": 0}})", kRope, "attention_calibration.basket",
               "is 0; it must be 1 to 65536"},
           Bad{R"({"attention_calibration": {"basket": 65537}})", kApe, "attention_calibration.basket", "is 65537"},
           Bad{R"({"attention_calibration": {"layers": 0}})", kApe, "attention_calibration.layers",
               "is 0; it must be above 0, at most 1"},
           Bad{R"({"attention_calibration": {"layers": "NaN"}})", kApe, "attention_calibration.layers", "is nan"},
           Bad{R"({"dual_chunk": {}})", kApe, "dual_chunk", "is not available"},
           Bad{R"({"dual_chunk": {"chunk": 0}})", kRope, "dual_chunk.chunk", "is 0; it must be 1 to 15"},
           Bad{R"({"dual_chunk": {"chunk": 16}})", kRope, "dual_chunk.chunk", "is 16"},
           Bad{R"({"dual_chunk": {"local_window": 16}})", kRope, "dual_chunk.local_window", "is 16"},
           Bad{R"({"dual_chunk": {"chunk": 12, "local_window": 5}})", kRope, "dual_chunk.local_window",
               "with dual_chunk.chunk 12"},
           // Bad combinations.
           Bad{R"({"grouped": {}, "recurrent": {}})", kApe, "recurrent", "cannot be combined with grouped"},
           Bad{R"({"yarn": {}, "interpolation": {}})", kRope, "yarn", "cannot be combined with interpolation"},
           Bad{R"({"self_extend": {}, "ntk": {"factor": 2}})", kRope, "self_extend", "cannot be combined with ntk"},
           Bad{R"({"resonance": true, "self_extend": {}})", kRope, "resonance", "cannot be combined with self_extend"},
           Bad{R"({"resonance": true, "dual_chunk": {}})", kRope, "resonance", "cannot be combined with dual_chunk"},
           Bad{R"({"dual_chunk": {}, "self_extend": {}})", kRope, "dual_chunk", "cannot be combined with self_extend"},
           Bad{R"({"resonance": true, "grouped": {}})", kRope, "resonance", "cannot be combined with grouped"},
           Bad{R"({"resonance": true, "recurrent": {}})", kRope, "resonance", "cannot be combined with recurrent"},
           Bad{R"({"recommended": {}, "windows": {}})", kApe, "recommended", "cannot be combined with windows"},
           Bad{R"({"profile": "rope", "when": "ALWAYS"})", kRope, "profile", "cannot be combined with when"},
           Bad{R"({"profile": "other"})", kRope, "profile", "is \"other\"; this server has: rope"},
       }) {
    const ModelManifest model = bad.family == kApe ? FakeManifest() : FakeRopeManifest();
    const auto refused = ResolveExtension(Parse(bad.json), EmbedOptions::ONE_VECTOR, model, profiles);
    ASSERT_FALSE(refused.ok()) << bad.json;
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument) << bad.json;
    EXPECT_EQ(ErrorField(refused.status()), std::string("options.extension.") + bad.field) << bad.json;
    EXPECT_THAT(std::string(refused.status().message()), HasSubstr(bad.said)) << bad.json;
    EXPECT_NE(ErrorReason(refused.status()), "") << bad.json;
  }
}

// Each positions method must be a field of the proto, with its numbers, and must have its own kind in Explain. There
// must be no other fields.
TEST(ExtensionConverterTest, TheProtoHasEveryMethodAndNoOther) {
  std::set<std::string> methods{"windows", "recommended", AttentionCalibration::kName};
  ForEachMethod([&methods](auto method) {
    methods.insert(method.kName);
    const auto* field = v1::Extension::descriptor()->FindFieldByName(method.kName);
    ASSERT_NE(field, nullptr) << method.kName;
    std::set<std::string> numbers;
    NumberNames names{numbers};
    method.Describe(names);
    EXPECT_EQ(static_cast<size_t>(field->message_type()->field_count()), numbers.size()) << method.kName;
    for (const std::string& number : numbers) {
      EXPECT_NE(field->message_type()->FindFieldByName(number), nullptr) << method.kName << "." << number;
    }
    v1::Method::Kind kind;
    EXPECT_TRUE(v1::Method::Kind_Parse(absl::AsciiStrToUpper(method.kName), &kind)) << method.kName;
  });
  const auto* extension = v1::Extension::descriptor();
  for (int i = 0; i < extension->field_count(); ++i) {
    const auto* field = extension->field(i);
    EXPECT_TRUE(field->message_type() == nullptr || methods.contains(field->name())) << field->name();
  }
}

TEST(ExtensionConverterTest, ProfilesAreListedWhereTheyFit) {
  const Profiles profiles{{"any", Extension{.windows = Windows{}}}, {"rope", Extension{.positions = Yarn{}}}};
  const ModelManifest ape = FakeManifest(), rope = FakeRopeManifest();
  EXPECT_THAT(ProfilesOf(ape, profiles), ElementsAre("any"));
  EXPECT_THAT(ProfilesOf(rope, profiles), ElementsAre("any", "rope"));
  const ModelManifest* const both[] = {&ape, &rope};
  EXPECT_TRUE(CheckProfiles(profiles, both).ok());
  const absl::Status refused = CheckProfiles(profiles, std::span(both).first(1));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("profiles.rope fits no model; yarn: is not available"));
}

// Lo is 16. A profile's own size must not become another one, because its vectors would be others.
TEST(ExtensionConverterTest, OnlyWindowsWithoutASizeAreFittedToTheServersLimit) {
  Extension named{.windows = Windows{.tokens = 12}}, unnamed{.windows = Windows{}};
  FitWindows(FakeManifest(), 8, named);
  FitWindows(FakeManifest(), 8, unnamed);
  EXPECT_EQ(named.windows->tokens, 12);
  EXPECT_EQ(unnamed.windows->tokens, 8);
  const absl::Status refused = CheckWindowSize(named, 8);
  EXPECT_EQ(ErrorReason(refused), "WINDOW_TOO_LARGE");
  EXPECT_EQ(ErrorField(refused), "windows.tokens");
  EXPECT_TRUE(CheckWindowSize(named, 12).ok());
  EXPECT_TRUE(CheckWindowSize({.windows = Windows{}}, 8).ok());
  EXPECT_TRUE(CheckWindowSize({}, 8).ok());
}

TEST(ExtensionConverterTest, EveryMethodThatModelsListIsTaken) {
  for (const ModelManifest& model : {FakeManifest(), FakeRopeManifest()}) {
    for (const std::string& method : MethodsOf(model)) {
      const bool flag = method == "resonance" || method == "attention_log_scaling";
      const std::string value = flag                                ? "true"
                                : method == "attention_temperature" ? "0.5"
                                : method == "ntk"                   ? R"({"factor": 2})"
                                                                    : "{}";
      const auto extension =
          ResolveExtension(Parse("{\"" + method + "\": " + value + "}"), EmbedOptions::ONE_VECTOR, model, {});
      EXPECT_TRUE(extension.ok()) << extension.status();
    }
  }
}

// Returns the window size of the extension that `recommended` stands for, or nothing if there is none.
std::optional<int64_t> RecommendedWindow(const ModelManifest& model, EmbedOptions::Output output) {
  const auto extension = ResolveExtension(Parse(R"({"recommended": {}})"), output, model, {});
  EXPECT_TRUE(extension.ok()) << extension.status();
  return extension.ok() && extension->windows.has_value() ? extension->windows->tokens : std::nullopt;
}

TEST(ExtensionConverterTest, RecommendedStandsForTheManifestsExtensionForTheOutput) {
  ModelManifest model = FakeManifest();
  for (const auto output : {EmbedOptions::ONE_VECTOR, EmbedOptions::WINDOW_VECTORS, EmbedOptions::SPAN_VECTORS}) {
    EXPECT_EQ(RecommendedWindow(model, output), std::nullopt);
    model.recommended_extension = R"({"windows": {"tokens": 8}})";
    EXPECT_EQ(RecommendedWindow(model, output), 8);
    model.recommended_multi_vector_extension = R"({"windows": {"tokens": 5}})";
    EXPECT_EQ(RecommendedWindow(model, output), output == EmbedOptions::WINDOW_VECTORS ? 5 : 8);
    model.recommended_extension = "";
    EXPECT_EQ(RecommendedWindow(model, output),
              output == EmbedOptions::WINDOW_VECTORS ? std::optional<int64_t>(5) : std::nullopt);
    model.recommended_multi_vector_extension = "";
  }
}

// For optional numbers, 0 must be distinguished from the default.
TEST(ExtensionConverterTest, AReportedRecommendationEqualsTheManifests) {
  for (const char* json : {R"({"shiftedRotary": {"shiftFrom": 9, "localWindow": 0}})",
                           R"({"dualChunk": {"localWindow": 3}, "when": "ALWAYS"})",
                           R"({"windows": {"tokens": 8, "aggregation": "TOP_NORM", "top": 2}})",
                           R"({"windows": {"aggregation": "NORM_WEIGHTED", "normTemperature": 0.5}})",
                           R"({"attentionCalibration": {"strength": 0, "basket": 16, "layers": 1}})"}) {
    ModelManifest model = FakeRopeManifest();
    model.recommended_extension = json;
    v1::Model message;
    FillRecommendations(model, message);
    std::string told;
    ASSERT_TRUE(google::protobuf::util::MessageToJsonString(message.recommended_extension(), &told).ok());
    EXPECT_EQ(nlohmann::json::parse(told), nlohmann::json::parse(json));
  }
}

TEST(ExtensionConverterTest, BadRecommendationsAreRefusedWithTheManifestsKey) {
  const auto expect_refused = [](const ModelManifest& model, const std::string& said) {
    const absl::Status refused = RecommendationsOf(model).status();
    EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition) << said;
    EXPECT_THAT(std::string(refused.message()), HasSubstr(said));
  };
  for (const char* bad : {"{windows", R"({"yarn": {}})", R"({"windows": {"tokens": 17}})", R"({"recommended": {}})",
                          R"({"windows": {}, "profile": "x"})"}) {
    ModelManifest model = FakeManifest();
    model.recommended_extension = bad;
    expect_refused(model, "fake: recommended_extension of its manifest: ");
    std::swap(model.recommended_extension, model.recommended_multi_vector_extension);
    expect_refused(model, "fake: recommended_multi_vector_extension of its manifest: ");
  }
  ModelManifest model = FakeManifest();
  model.recommended_extension = R"({"windows": {"vectors": 4}})";
  expect_refused(model, "recommended_extension of its manifest: has windows.vectors");
  for (const char* without_windows : {"{}", R"({"grouped": {}})"}) {
    model.recommended_extension = without_windows;
    EXPECT_TRUE(RecommendationsOf(model).ok());
    model.recommended_multi_vector_extension = without_windows;
    expect_refused(model, "recommended_multi_vector_extension of its manifest: has no windows");
    model.recommended_multi_vector_extension = "";
  }
}

TEST(ExtensionConverterTest, BadProfilesAreNamed) {
  for (const char* bad : {"{", R"({"windoes": {}})", R"({"profile": "a"})", R"({"grouped": {}, "recurrent": {}})"}) {
    const auto profiles = ParseProfiles({{"mine", bad}});
    EXPECT_THAT(std::string(profiles.status().message()), HasSubstr("profiles.mine")) << bad;
  }
  EXPECT_EQ(ParseProfiles({{"mine", R"({"windows": {"tokens": "64", "overlap": "8"}, "resonance": "true"})"}})
                ->at("mine")
                .windows->tokens,
            64);
}

}  // namespace
}  // namespace longembed
