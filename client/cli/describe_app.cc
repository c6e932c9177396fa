#include "client/cli/describe_app.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "program/suggestion.h"

namespace longembed::client {
namespace {

constexpr char kFileType[] = "FILE";

ProgramOption DescribeOption(const CLI::Option& option) {
  ProgramOption described{.help = option.get_description()};
  for (const std::string& name : option.get_snames()) described.names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) described.names.push_back("--" + name);
  // A name such as "--windows{default}" is a flag with an optional value.
  described.value_optional = absl::StrContains(option.get_name(false, true), "{");
  if (described.value_optional) described.value = "VALUE";
  if (option.get_items_expected_max() == 0) return described;
  // The type is written as "TEXT:{json,text}", "TEXT:FILE" or "UINT".
  const std::string type = option.get_type_name();
  const size_t open = type.find('{');
  if (open != std::string::npos) {
    described.choices = absl::StrSplit(type.substr(open + 1, type.find('}') - open - 1), ',');
  }
  described.value = type.substr(0, type.find(':'));
  described.is_path = absl::StrContains(type, kFileType);
  const std::string by_default = option.get_default_str();
  if (!by_default.empty()) absl::StrAppend(&described.help, " (default: ", by_default, ")");
  return described;
}

void AddPositional(const CLI::Option& option, ProgramCommand& command) {
  const ProgramOption described = DescribeOption(option);
  command.operands_are_paths = described.is_path;
  command.operand_choices = described.choices;
  command.operands = !described.choices.empty() ? absl::StrJoin(described.choices, "|") : "[FILE...]";
}

// Adds the options of a command and of its option groups. In CLI11, option groups are commands without a name.
void AddOptions(const CLI::App& app, ProgramCommand& command) {
  for (const CLI::Option* const option : app.get_options()) {
    option->nonpositional() ? command.options.push_back(DescribeOption(*option)) : AddPositional(*option, command);
  }
  for (const CLI::App* const group : app.get_subcommands({})) {
    if (group->get_name().empty()) AddOptions(*group, command);
  }
}

bool HasName(const ProgramOption& option, const std::string& name) {
  return std::ranges::count(option.names, name) > 0;
}

// Returns nullptr if the name is unknown.
const ProgramOption* Find(const std::vector<ProgramOption>& options, const std::string& name) {
  const auto found = std::ranges::find_if(options, [&name](const auto& option) { return HasName(option, name); });
  return found == options.end() ? nullptr : &*found;
}

std::vector<std::string> NamesOf(const std::vector<ProgramOption>& options) {
  std::vector<std::string> names;
  for (const ProgramOption& option : options) names.insert(names.end(), option.names.begin(), option.names.end());
  return names;
}

std::vector<std::string> CommandList(const ProgramDescription& program) {
  std::vector<std::string> names;
  for (const ProgramCommand& command : program.commands) names.push_back(command.name);
  return names;
}

std::string CommandNames(const ProgramDescription& program) { return absl::StrJoin(CommandList(program), ", "); }

// Returns "" if CLI11's own message suffices.
std::string ExplainFirstWord(const ProgramDescription& program, const std::string& word) {
  if (!absl::StartsWith(word, "-")) {
    return absl::StrCat("unknown command ", word, Suggest(word, CommandList(program)), "; there are ",
                        CommandNames(program));
  }
  const std::string name = word.substr(0, word.find('='));
  if (Find(program.options, name) != nullptr) return "";
  for (const ProgramCommand& command : program.commands) {
    if (Find(command.options, name) == nullptr) continue;
    return absl::StrCat(name, " belongs after the command: ", program.name, " ", command.name, " ", name);
  }
  return absl::StrCat("unknown option ", name, "; a command comes first: ", CommandNames(program));
}

std::string ExplainWords(const ProgramCommand& command, const std::vector<std::string>& words) {
  const ProgramOption* previous = nullptr;  // The previous option, if its value may be missing.
  for (size_t i = 1; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (word == "--") return "";
    if (!absl::StartsWith(word, "-") || word == "-") {
      double number = 0;
      std::error_code error;
      // A number that is also the name of a file is not a misplaced value.
      if (previous != nullptr && absl::SimpleAtod(word, &number) && !std::filesystem::exists(word, error)) {
        const std::string& name = previous->names.front();
        return absl::StrCat(name, " takes its value after \"=\": ", name, "=", word);
      }
      previous = nullptr;
      continue;
    }
    const std::string name = word.substr(0, word.find('='));
    const ProgramOption* const option = Find(command.options, name);
    if (option == nullptr) {
      return absl::StrCat("unknown option ", name, " of ", command.name, Suggest(name, NamesOf(command.options)));
    }
    const bool has_value = name.size() < word.size();
    previous = option->value_optional && !has_value ? option : nullptr;
    if (!option->value.empty() && !option->value_optional && !has_value) ++i;
  }
  return "";
}

// Returns nullptr if the words name no command.
const ProgramCommand* FindCommand(const ProgramDescription& program, const std::vector<std::string>& words) {
  if (words.empty()) return nullptr;
  const auto found =
      std::ranges::find_if(program.commands, [&words](const auto& command) { return command.name == words[0]; });
  return found == program.commands.end() ? nullptr : &*found;
}

}  // namespace

ProgramDescription DescribeApp(const CLI::App& app) {
  ProgramDescription program{.name = app.get_name(), .summary = app.get_description()};
  ProgramCommand own;
  AddOptions(app, own);
  program.options = std::move(own.options);
  for (const CLI::App* const command : app.get_subcommands({})) {
    if (command->get_name().empty()) continue;
    ProgramCommand& described = program.commands.emplace_back(
        ProgramCommand{.name = command->get_name(), .summary = command->get_description()});
    AddOptions(*command, described);
  }
  return program;
}

std::string ExplainMisuse(const ProgramDescription& program, const std::vector<std::string>& words) {
  if (words.empty()) return absl::StrCat("a command is missing: ", CommandNames(program));
  const ProgramCommand* const command = FindCommand(program, words);
  return command != nullptr ? ExplainWords(*command, words) : ExplainFirstWord(program, words[0]);
}

std::string FindEmptyFlag(const ProgramDescription& program, const std::vector<std::string>& words) {
  const ProgramCommand* const command = FindCommand(program, words);
  if (command == nullptr) return "";
  for (size_t i = 1; i < words.size() && words[i] != "--"; ++i) {
    const std::string name = words[i].substr(0, words[i].find('='));
    const ProgramOption* const option = Find(command->options, name);
    if (option == nullptr) continue;
    const bool is_flag = option->value.empty() || option->value_optional;
    if (is_flag && words[i] == absl::StrCat(name, "=")) return name;
    if (!is_flag && name == words[i]) ++i;  // The next word is the option's value.
  }
  return "";
}

}  // namespace longembed::client
