#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "model/yaml/yaml_mapping.h"
#include "model/yaml/yaml_node.h"

namespace longembed {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

std::string ErrorOf(const std::string& yaml, const std::function<void(YamlMapping&)>& read,
                    YamlWords words = YamlWords::kQuoted) {
  return std::string(ReadYaml(yaml, read, words).message());
}

TEST(YamlTest, ReadsEveryKindOfValue) {
  int integer = 0;
  double number = 0;
  bool flag = false;
  std::string text, quoted, absent = "as it was";
  absl::Duration duration;
  std::vector<int> list;
  std::map<std::string, std::string> map;
  const absl::Status status = ReadYaml(
      "--- # One document.\n"
      "a: -12\nb: 1.5e3\nc: true\nd: 010\ne: \"yes\"\nf: 1m30s\ng: [1, 0]\nh: {x: 1.0, y: no}\ni: {j: {k: 3}}\n...\n",
      [&](YamlMapping& root) {
        root.Integer("a", integer, -20, 20);
        root.Number("b", number, 0, 1e4);
        root.Flag("c", flag);
        root.Text("d", text);
        root.Text("e", quoted);
        root.Duration("f", duration, {.most = absl::Hours(1)});
        root.Integers("g", list, 0, 1);
        root.Texts("h", map);
        root.Text("absent", absent);
        root.Ignore("i");
      });
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(integer, -12);
  EXPECT_EQ(number, 1500);
  EXPECT_TRUE(flag);
  EXPECT_EQ(text, "010");  // A text keeps its exact characters.
  EXPECT_EQ(quoted, "yes");
  EXPECT_EQ(duration, absl::Seconds(90));
  EXPECT_THAT(list, ElementsAre(1, 0));
  EXPECT_EQ(map.at("x"), "1.0");
  EXPECT_EQ(map.at("y"), "no");
  EXPECT_EQ(absent, "as it was");
}

TEST(YamlTest, TextsAreUtf8) {
  std::string text;
  const auto read = [&text](YamlMapping& root) { root.Text("a", text); };
  const std::string good[] = {"\xc2\xa1",     "\xdf\xbf",         "\xe0\xa0\x80",
                              "\xef\xbf\xbd", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"};
  for (const std::string& character : good) {
    EXPECT_EQ(ErrorOf("a: 'x" + character + "'", read), "") << character;
    EXPECT_EQ(text, "x" + character);
  }
  const std::string bad[] = {"\xe8",         "\x80",         "\xc1\xbf",         "\xc3",
                             "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80"};
  for (const std::string& bytes : bad) {
    EXPECT_THAT(ErrorOf("b: 1\na: 'mod" + bytes + "le'", read), HasSubstr("line 2: holds text that is not UTF-8"));
    EXPECT_THAT(ErrorOf("b: 1\nmod" + bytes + "le: 1", read), HasSubstr("line 2: holds text that is not UTF-8"));
  }
  // yaml-cpp's results for these are not UTF-8.
  EXPECT_THAT(ErrorOf("a: \"x\\N\"", read), HasSubstr("one of the escapes"));
  EXPECT_THAT(ErrorOf("a: \"x\\_\"", read), HasSubstr("one of the escapes"));
  EXPECT_EQ(ErrorOf("a: \"x\\x85\\xA0\"", read), "");
  EXPECT_EQ(text, "x\xc2\x85\xc2\xa0");
}

TEST(YamlTest, IntegersAreDecimal) {
  const auto read = [](YamlMapping& root) {
    int64_t value = 0;
    root.Integer("n", value, std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max());
  };
  for (const char* good : {"0", "-0", "7", "-10", "9223372036854775807", "-9223372036854775808"}) {
    EXPECT_EQ(ErrorOf(std::string("n: ") + good, read), "") << good;
  }
  for (const char* bad : {"010", "00", "-01", "0x10", "0o7", "0b1", "1_000", "1,000", "+1", "1e3", "1.0", "'1'", "1 2",
                          "1:30", "9223372036854775808", "nan", "true", "[1]", "{a: 1}"}) {
    EXPECT_THAT(ErrorOf(std::string("n: ") + bad, read), HasSubstr("line 1: n must be a whole number")) << bad;
  }
}

TEST(YamlTest, NumbersAreFinite) {
  const auto read = [](YamlMapping& root) {
    double value = 0;
    root.Number("n", value, -1e300, 1e300);
  };
  for (const char* good : {"0", "1.5", "-2e-3", "1.0e+17", "10000.0", "0.5"}) {
    EXPECT_EQ(ErrorOf(std::string("n: ") + good, read), "") << good;
  }
  for (const char* bad : {"nan", ".nan", "inf", "-.inf", "Infinity", "1e999", "0x1p3", "010.5", ".5", "1_0", "'1'"}) {
    EXPECT_THAT(ErrorOf(std::string("n: ") + bad, read), HasSubstr("n must be a number from")) << bad;
  }
}

TEST(YamlTest, ErrorsNameLineKeyAndValue) {
  const auto read = [](YamlMapping& root) {
    root.Sections("list", [](YamlMapping& item) {
      bool flag = false;
      item.Require("flag");
      item.Flag("flag", flag);
    });
  };
  EXPECT_EQ(ErrorOf("list:\n- flag: true\n- flag: yes\n", read), "line 3: list[1].flag must be true or false, not yes");
  EXPECT_EQ(ErrorOf("list:\n- {}\n", read), "line 2: list[0].flag is missing");
  EXPECT_EQ(ErrorOf("list:\n- flag: true\n\nlist2: 1", read), "line 4: list2 is unknown; known here: list");
  EXPECT_EQ(ErrorOf("list:\n- flag: true\n  flag: true", read), "line 3: list[0].flag appears twice");
  EXPECT_EQ(ErrorOf("list:\n- flag:\n", read), "line 2: list[0].flag is empty; write a value, or leave the key out");
}

TEST(YamlTest, ErrorsKeepSecrets) {
  const auto read = [](YamlMapping& root) {
    int value = 0;
    root.Integer("n", value, 0, 1);
  };
  for (const char* yaml : {"n: hush", "hush: 1", "{n: 0, n: hush}", "hush: 1\nhush: 2", "n: *hush", "n: \"\\hush",
                           "%YAML hush\n---\nn: 1", "n: hush: hush", "n: @hush", "{hush", "n: !hush 1", "&hush n: 1"}) {
    const std::string error = ErrorOf(yaml, read, YamlWords::kSecret);
    EXPECT_NE(error, "") << yaml;
    EXPECT_THAT(error, Not(HasSubstr("hush"))) << yaml;
  }
}

TEST(YamlTest, RefusesAnchorsTagsAndOtherSyntaxBeyondTheSubset) {
  const auto read = [](YamlMapping& root) { root.Ignore("a"), root.Ignore("b"); };
  for (const auto& [yaml, said] :
       {std::pair{"a: &x 1\nb: *x", "anchors are not supported"}, std::pair{"a: 1\nb: *x", "line 2"},
        std::pair{"a: {<<: {c: 1}}", "merge keys are not supported"}, std::pair{"a: !!int 1", "tags are not supported"},
        std::pair{"[1]: 2", "a key must be text"}, std::pair{"~: 2", "a key must be text"},
        std::pair{"a: 1\n---\nb: 2", "a second document begins"},
        std::pair{"a: {b: {c: 1, c: 2}}", "a.b.c appears twice"}, std::pair{"- a", "must be a mapping"},
        std::pair{"", "must be a mapping"}}) {
    EXPECT_THAT(ErrorOf(yaml, read), HasSubstr(said)) << yaml;
  }
}

TEST(YamlTest, DepthAndSizeAreBounded) {
  const auto nested = [](int depth) {
    return std::string(static_cast<size_t>(depth), '[') + std::string(static_cast<size_t>(depth), ']');
  };
  EXPECT_TRUE(ParseYaml(nested(kMaxYamlDepth)).ok());
  EXPECT_THAT(std::string(ParseYaml(nested(kMaxYamlDepth + 1)).status().message()), HasSubstr("deeper than 16"));
  std::string mappings;
  for (int i = 0; i <= kMaxYamlDepth; ++i) mappings = "{a: " + (i == 0 ? "1" : mappings) + "}";
  EXPECT_THAT(std::string(ParseYaml(mappings).status().message()), HasSubstr("deeper than 16"));
  for (const char bracket : {'[', '{'}) EXPECT_FALSE(ParseYaml(std::string(100000, bracket)).ok());
  EXPECT_TRUE(ParseYaml(std::string(kMaxYamlBytes, ' ')).ok());
  EXPECT_THAT(std::string(ParseYaml(std::string(kMaxYamlBytes + 1, ' ')).status().message()), HasSubstr("at most"));
}

TEST(YamlTest, GarbageIsAnError) {
  for (const char* yaml : {"[", "{a", "a: b: c", "\"a", "a:\n\tb: 1", "@"}) {
    EXPECT_FALSE(ParseYaml(yaml).ok()) << yaml;
  }
}

}  // namespace
}  // namespace longembed
