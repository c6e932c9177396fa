#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

#include "program/completion.h"
#include "program/man_page.h"
#include "program/suggestion.h"

namespace longembed {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

const ProgramDescription kProgram{
    .name = "tool",
    .summary = "works",
    .version = "1.2",
    .options = {{.names = {"--version"}, .help = "Print the version"}},
    .commands = {{.name = "do",
                  .summary = "Does it",
                  .options = {{.names = {"-w", "--way"}, .value = "TEXT", .choices = {"good", "bad"}, .help = "How"},
                              {.names = {"--from"}, .value = "FILE", .is_path = true, .help = "Where: [here]"},
                              {.names = {"--size"}, .value = "N", .value_optional = true, .help = "It's optional"}},
                  .operands = "[FILE...]",
                  .operands_are_paths = true},
                 {.name = "undo", .operands = "a|b", .operand_choices = {"a", "b"}}},
    .sections = {{"EXIT STATUS", {".5: a line that starts with a dot"}}}};

TEST(SuggestionTest, FindsTheNearestWord) {
  const std::vector<std::string> known{"--prompt", "--prompt-name", "--text"};
  EXPECT_EQ(Suggest("--prompt_name", known), "; did you mean --prompt-name?");
  EXPECT_EQ(Suggest("--PROMPT-NAME", known), "; did you mean --prompt-name?");
  EXPECT_EQ(Suggest("--txet", known), "; did you mean --text?");
  EXPECT_EQ(Suggest("--nothing-like-it", known), "");
  EXPECT_EQ(Suggest("", known), "");
  EXPECT_EQ(Suggest(std::string(100'000, 'x'), known), "");
}

TEST(ManPageTest, HasEveryWordAndIsRoff) {
  const std::string page = ManPage(kProgram);
  for (const char* word : {"\\-\\-way", "\\-w", "good|bad", "\\-\\-from", "FILE", "[=", "Does it", "\\-\\-version"}) {
    EXPECT_THAT(page, HasSubstr(word));
  }
  EXPECT_THAT(page, AllOf(HasSubstr(".TH TOOL 1 "), HasSubstr("\n.SH DO\n"), HasSubstr("\n\\&.5: a line")));
}

TEST(ManPageTest, DescribesAnOptionOfTheProgramOnce) {
  ProgramDescription program{.name = "tool", .needed = "--config FILE", .options = {{.names = {"-h", "--help"}}}};
  EXPECT_THAT(ManPage(program), HasSubstr("\\fBtool\\fR [\\fIOPTIONS\\fR] \\-\\-config FILE\n"));
  program.commands = {{.name = "do", .options = {{.names = {"-h", "--help"}}, {.names = {"--way"}}}}};
  const std::string page = ManPage(program);
  EXPECT_THAT(page, HasSubstr("\\-\\-way"));
  EXPECT_EQ(page.find("\\-\\-help"), page.rfind("\\-\\-help"));
}

// Returns bash's completions of a line, whose last word is being completed.
std::string CompleteInBash(const std::string& words) {
  const std::string file = ::testing::TempDir() + "/completion." + std::to_string(getpid());
  std::ofstream(file)
      << *CompletionScript(kProgram, "bash") << "COMP_WORDS=(" << words
      << ")\nCOMP_CWORD=$((${#COMP_WORDS[@]} - 1))\ncompopt() { :; }\n_tool\necho \"${COMPREPLY[*]}\"\n";
  FILE* const pipe = popen(("bash --norc " + file + " 2>&1").c_str(), "r");
  std::string reply;
  for (int c = 0; (c = std::fgetc(pipe)) != EOF;) reply += static_cast<char>(c);
  pclose(pipe);
  return reply;
}

TEST(CompletionTest, BashCompletes) {
  EXPECT_EQ(CompleteInBash("tool ''"), "do undo\n");
  EXPECT_EQ(CompleteInBash("tool u"), "undo\n");
  EXPECT_EQ(CompleteInBash("tool --v"), "--version\n");
  EXPECT_EQ(CompleteInBash("tool do --"), "--way --from --size\n");
  EXPECT_EQ(CompleteInBash("tool do --way ''"), "good bad\n");
  EXPECT_EQ(CompleteInBash("tool do -w g"), "good\n");
  EXPECT_EQ(CompleteInBash("tool do --way = b"), "bad\n");  // bash splits --way=b into these words.
  EXPECT_EQ(CompleteInBash("tool undo ''"), "a b\n");
  const std::string folder = ::testing::TempDir() + "/completion_files";
  mkdir(folder.c_str(), 0700);
  std::ofstream(folder + "/one.jsonl") << "";
  EXPECT_EQ(CompleteInBash("tool do " + folder + "/o"), folder + "/one.jsonl\n");
  EXPECT_EQ(CompleteInBash("tool do --from " + folder + "/o"), folder + "/one.jsonl\n");
}

TEST(CompletionTest, ZshIsValid) {
  const std::string script = *CompletionScript(kProgram, "zsh");
  EXPECT_THAT(script,
              AllOf(HasSubstr("'*--way[How]:TEXT:(good bad)'"), HasSubstr("'*--from[Where\\: \\[here\\]]:FILE:_files'"),
                    HasSubstr("'*--size=-[It'\\''s optional]::N: '"), Not(HasSubstr("It's"))));
  if (std::system("command -v zsh >/dev/null") != 0) GTEST_SKIP() << "zsh is not installed; its syntax is not checked";
  const std::string file = ::testing::TempDir() + "/completion.zsh";
  std::ofstream(file) << script;
  EXPECT_EQ(std::system(("zsh -n " + file).c_str()), 0);
}

TEST(CompletionTest, AnotherShellIsRefused) {
  EXPECT_THAT(std::string(CompletionScript(kProgram, "fish").status().message()), HasSubstr("\"fish\""));
}

}  // namespace
}  // namespace longembed
