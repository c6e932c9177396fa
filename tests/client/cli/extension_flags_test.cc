#include "client/cli/extension_flags.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_replace.h"
#include "model/plan/methods/all.h"

namespace longembed::client {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<v1::EmbedOptions> Parse(std::vector<std::string> arguments) {
  CLI::App app;
  ExtensionFlags flags;
  flags.AddTo(app);
  std::reverse(arguments.begin(), arguments.end());  // CLI11 expects arguments in reverse order.
  try {
    app.parse(arguments);
  } catch (const CLI::ParseError& error) {
    return absl::InvalidArgumentError(error.what());
  }
  v1::EmbedOptions options;
  if (absl::Status status = flags.Fill(options); !status.ok()) return status;
  return options;
}

TEST(ExtensionFlagsTest, AKeyThatAppearsTwiceIsRefused) {
  const absl::Status status =
      Parse({"--extension", R"({"windows": {"tokens": 8, "overlap": 2, "tokens": 9}})"}).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("--extension: has \"tokens\" twice"));
}

TEST(ExtensionFlagsTest, AnErrorOfTheJsonIsOneSentence) {
  const std::pair<const char*, const char*> rows[] = {
      {"{windows", "--extension: Unexpected end of string. Expected : between key:value pair."},
      {"{\"windows\": {}} x", "--extension: Parsing terminated before end of input."},
      {"[]", "--extension: Root element must be a message."},
      {R"({"windows": {"tokens": 5.5}})", "--extension: (windows.tokens): invalid value 5.5 for type TYPE_UINT32"},
  };
  for (const auto& [json, said] : rows) EXPECT_EQ(Parse({"--extension", json}).status().message(), said);
}

// CLI11 alone reads 010 as 8.
TEST(ExtensionFlagsTest, NumbersAreDecimal) {
  for (const char* flag : {"--top", "--groups", "--token-pooling", "--max-terms"}) {
    for (const char* value : {"010", "0x10", "-1", "1.5"}) {
      EXPECT_FALSE(Parse({"--windows", flag, value}).ok()) << flag << " " << value;
    }
    EXPECT_TRUE(Parse({"--windows", flag, "10"}).ok()) << flag;
  }
}

TEST(ExtensionFlagsTest, EveryMethodHasAFlag) {
  ForEachMethod([](const auto& method) {
    const std::string name = absl::StrReplaceAll(method.kName, {{"_", "-"}});
    const auto options = Parse({"--positions", name == "ntk" ? "ntk=2" : name});
    ASSERT_TRUE(options.ok()) << options.status();
    const auto* field = v1::Extension::descriptor()->FindFieldByName(method.kName);
    EXPECT_TRUE(options->extension().GetReflection()->HasField(options->extension(), field)) << name;
  });
}

TEST(ExtensionFlagsTest, EqualTheirJson) {
  const std::pair<std::vector<std::string>, const char*> cases[] = {
      {{"--windows"}, R"({"windows": {}})"},
      {{"--windows=256", "--overlap", "32", "--aggregation", "max", "--short-last"},
       R"({"windows": {"tokens": 256, "overlap": 32, "aggregation": "MAX", "last": "SHORT"}})"},
      {{"--windows", "--aggregation", "mean"}, R"({"windows": {"aggregation": "MEAN"}})"},
      {{"--windows", "--aggregation", "token-weighted-mean"}, R"({"windows": {"aggregation": "TOKEN_WEIGHTED_MEAN"}})"},
      {{"--windows", "--aggregation", "first"}, R"({"windows": {"aggregation": "FIRST"}})"},
      {{"--positions", "grouped"}, R"({"grouped": {}})"},
      {{"--positions", "grouped=4", "--always"}, R"({"grouped": {"factor": 4}, "when": "ALWAYS"})"},
      {{"--positions", "ntk-base=40000"}, R"({"ntk": {"base": 40000}})"},
      {{"--positions", "ntk=2.5", "--resonance"}, R"({"ntk": {"factor": 2.5}, "resonance": true})"},
      {{"--positions", "self-extend"}, R"({"self_extend": {}})"},
      {{"--positions", "self-extend=9,64", "--log-scaling"},
       R"({"self_extend": {"group": 9, "neighbor_window": 64}, "attention_log_scaling": true})"},
      {{"--positions", "shifted-rotary=170,64"}, R"({"shifted_rotary": {"shift_from": 170, "local_window": 64}})"},
      {{"--windows", "--positions", "yarn=8"}, R"({"windows": {}, "yarn": {"factor": 8}})"},
      {{"--recommended"}, R"({"recommended": {}})"},
      {{"--profile", "archive"}, R"({"profile": "archive"})"},
      {{"--extension", R"({"recurrent": {}})"}, R"({"recurrent": {}})"},
  };
  for (const auto& [arguments, json] : cases) {
    const auto options = Parse(arguments);
    ASSERT_TRUE(options.ok()) << options.status();
    v1::Extension expected;
    ASSERT_TRUE(google::protobuf::util::JsonStringToMessage(json, &expected).ok()) << json;
    EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(options->extension(), expected))
        << json << " against " << options->extension().ShortDebugString();
  }
  EXPECT_FALSE(Parse({})->has_extension());
}

TEST(ExtensionFlagsTest, Spans) {
  EXPECT_TRUE(Parse({"--spans", "sentences"})->spans().has_sentences());
  EXPECT_EQ(Parse({"--spans", "64"})->spans().every_tokens().tokens(), 64u);
  EXPECT_EQ(Parse({"--spans", "ranges"})->output(), v1::EmbedOptions::SPAN_VECTORS);
  EXPECT_EQ(Parse({"--vectors", "window"})->output(), v1::EmbedOptions::WINDOW_VECTORS);
}

TEST(ExtensionFlagsTest, WrongFlagsAreNamed) {
  const std::pair<std::vector<std::string>, const char*> cases[] = {
      {{"--windows=many"}, "--windows"},
      {{"--calibration=half"}, "--calibration"},
      {{"--overlap", "3"}, "--windows"},
      {{"--windows", "--overlap", "-3"}, "--overlap"},
      {{"--windows", "--overlap", "0x3"}, "--overlap"},
      {{"--positions", "warped"}, "--positions"},
      {{"--positions", "ntk"}, "--positions"},
      {{"--positions", "recurrent=3"}, "--positions"},
      {{"--positions", "yarn=8}"}, "--positions"},
      {{"--positions", "self-extend=9"}, "self-extend[=GROUP,NEIGHBOR_WINDOW]"},
      {{"--extension", "{", "--windows"}, "--extension"},
      {{"--extension", "{"}, "--extension"},
      {{"--recommended", "--profile", "x"}, "--profile"},
      {{"--spans", "words"}, "--spans"},
      {{"--spans", "4", "--vectors", "window"}, "--spans"},
      {{"--spans", "4", "--vectors", "one"}, "--spans"},
      {{"--positions", "yarn="}, "has no number"},
      {{"--positions", "grouped=2.5"}, "--positions: "},
  };
  for (const auto& [arguments, said] : cases) {
    const auto options = Parse(arguments);
    ASSERT_FALSE(options.ok()) << arguments.front();
    EXPECT_THAT(std::string(options.status().message()), HasSubstr(said));
  }
}

}  // namespace
}  // namespace longembed::client
