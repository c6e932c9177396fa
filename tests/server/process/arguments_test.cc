#include "server/process/arguments.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>
#include <vector>

namespace longembed {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

struct Outcome {
  std::variant<ServerArguments, int> result;
  std::string out, err;

  int status() const { return std::get<int>(result); }
  const ServerArguments& server() const { return std::get<ServerArguments>(result); }
};

Outcome Handle(std::vector<std::string> words) {
  words.insert(words.begin(), "longembed-server");
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  std::ostringstream out, err;
  auto result = HandleArguments(static_cast<int>(argv.size()), argv.data(), "1.2",
                                {.libraries = "LibX 3", .cpu_kernels = {"avx9", "avx2"}}, out, err);
  return {std::move(result), out.str(), err.str()};
}

TEST(ArgumentsTest, NamesTheConfig) {
  EXPECT_EQ(Handle({"--config", "a.yaml"}).server().config_path, "a.yaml");
  EXPECT_EQ(Handle({"--config=a=b.yaml"}).server().config_path, "a=b.yaml");
  EXPECT_FALSE(Handle({"--config", "a.yaml"}).server().check_config);
  EXPECT_TRUE(Handle({"--check-config", "--config", "a.yaml"}).server().check_config);
  EXPECT_TRUE(Handle({"--config", "a.yaml", "--check-config"}).server().check_config);
}

TEST(ArgumentsTest, WrongArgumentsAreNamed) {
  const std::pair<std::vector<std::string>, const char*> rows[] = {
      {{}, "--config FILE is missing"},
      {{"--check-config"}, "--config FILE is missing"},
      {{"--port", "5"}, "unknown argument --port; ports, models and everything else are keys of the config file"},
      {{"--config", "a", "--port=5"}, "unknown argument --port; ports"},
      {{"--confg", "a"}, "unknown argument --confg; did you mean --config?"},
      {{"--check_config", "--config", "a"}, "unknown argument --check_config; did you mean --check-config?"},
      {{"--config", "a", "--config", "a"}, "--config is given twice"},
      {{"--config"}, "--config lacks its value: --config FILE"},
      {{"--config="}, "--config lacks its value: --config FILE"},
      {{"--config", ""}, "--config lacks its value: --config FILE"},
      {{"--config", "--check-config"}, "--config lacks its value: --config FILE"},
      {{"--check-config=yes", "--config", "a"}, "--check-config takes no value"},
      {{"a.yaml"}, "unexpected argument a.yaml; a config is given as --config a.yaml"},
      {{"--completion", "fish"}, "no completion for the shell \"fish\""},
  };
  for (const auto& [words, what] : rows) {
    const Outcome outcome = Handle(words);
    EXPECT_EQ(outcome.status(), kExitUsage) << what;
    EXPECT_THAT(outcome.err, AllOf(StartsWith(std::string("longembed-server: ") + what),
                                   EndsWith(" (see longembed-server --help)\n")));
    EXPECT_EQ(outcome.out, "") << what;
  }
}

TEST(ArgumentsTest, PrintsHelpVersionAndCpuFeatures) {
  EXPECT_EQ(Handle({"--version"}).out, "longembed-server 1.2 (LibX 3)\n");
  EXPECT_EQ(Handle({"--cpu-features"}).out, "avx9\navx2\n");
  EXPECT_EQ(Handle({"-h"}).out, Handle({"--help"}).out);
  EXPECT_THAT(Handle({"--help"}).out, AllOf(StartsWith("usage: longembed-server [OPTIONS] --config FILE\n"),
                                            HasSubstr("EXIT STATUS"), HasSubstr("LONGEMBED__LISTEN")));
  EXPECT_EQ(Handle({"--help"}).status(), 0);
}

// All three are generated from one table.
TEST(ArgumentsTest, HelpManPageAndCompletionHaveEveryOption) {
  const std::string help = Handle({"--help"}).out, man = Handle({"--man"}).out;
  for (const ProgramOption& option : DescribeServer("1").options) {
    for (const std::string& name : option.names) {
      std::string escaped = name;
      for (size_t at = 0; (at = escaped.find('-', at)) != std::string::npos; at += 2) escaped.insert(at, "\\");
      EXPECT_THAT(help, HasSubstr(name));
      EXPECT_THAT(man, HasSubstr("\\fB" + escaped + "\\fR"));
      EXPECT_THAT(Handle({"--completion", "bash"}).out, HasSubstr(name));
      EXPECT_THAT(Handle({"--completion=zsh"}).out, HasSubstr("'*" + name + "["));
    }
  }
}

}  // namespace
}  // namespace longembed
