#include "program/completion.h"

#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"

namespace longembed {
namespace {

// Returns the program's commands, followed by a command without a name that stands for the program itself.
std::vector<ProgramCommand> CommandsOf(const ProgramDescription& program) {
  std::vector<ProgramCommand> commands = program.commands;
  commands.push_back({.name = "", .options = program.options});
  for (const ProgramCommand& command : program.commands) commands.back().operand_choices.push_back(command.name);
  return commands;
}

std::vector<std::string> OptionNames(const ProgramCommand& command) {
  std::vector<std::string> names;
  for (const ProgramOption& option : command.options) {
    names.insert(names.end(), option.names.begin(), option.names.end());
  }
  return names;
}

std::string FunctionName(const ProgramDescription& program) {
  return absl::StrCat("_", absl::StrReplaceAll(program.name, {{"-", "_"}}));
}

// Returns the bash code that completes one of `words`, or file names if `paths`.
std::string BashReply(const std::vector<std::string>& words, bool paths) {
  if (paths) return "compopt -o filenames; COMPREPLY=($(compgen -f -- \"$current\"))";
  if (words.empty()) return "COMPREPLY=()";
  return absl::StrCat("COMPREPLY=($(compgen -W '", absl::StrJoin(words, " "), "' -- \"$current\"))");
}

// Returns the branches of a bash `case` that complete the values of options.
std::string BashValues(const std::vector<ProgramCommand>& commands) {
  std::string cases;
  for (const ProgramCommand& command : commands) {
    for (const ProgramOption& option : command.options) {
      if (option.value.empty() || option.value_optional) continue;
      const std::string pattern =
          absl::StrJoin(option.names, "|", [&command](std::string* out, const std::string& name) {
            absl::StrAppend(out, "\"", command.name, " ", name, "\"");
          });
      absl::StrAppend(&cases, "    ", pattern, ") ", BashReply(option.choices, option.is_path), "; return ;;\n");
    }
  }
  return cases;
}

std::string BashScript(const ProgramDescription& program) {
  const std::vector<ProgramCommand> commands = CommandsOf(program);
  std::string names, operands, options;
  for (const ProgramCommand& command : commands) {
    const std::string reply = BashReply(command.operand_choices, command.operands_are_paths);
    absl::StrAppend(&operands, "    '", command.name, "') ", reply, " ;;\n");
    absl::StrAppend(&options, "    '", command.name, "') ", BashReply(OptionNames(command), false), " ;;\n");
    if (!command.name.empty()) absl::StrAppend(&names, names.empty() ? "" : "|", command.name);
  }
  const std::string find_command =
      names.empty() ? ""
                    : absl::StrCat("  for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n    case $word in ", names,
                                   ") command=$word; break ;; esac\n  done\n");
  return absl::StrCat("# bash completion of ", program.name, "\n", FunctionName(program),
                      "() {\n"
                      "  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} command= word\n"
                      "  # Bash takes --name=value apart.\n"
                      "  if [[ $current == = ]]; then current=; "
                      "elif [[ $previous == = ]]; then previous=${COMP_WORDS[COMP_CWORD - 2]}; fi\n",
                      find_command, "  case \"$command $previous\" in\n", BashValues(commands),
                      "  esac\n  if [[ $current == -* ]]; then\n    case $command in\n", options,
                      "    esac\n  else\n    case $command in\n", operands, "    esac\n  fi\n}\ncomplete -F ",
                      FunctionName(program), " ", program.name, "\n");
}

// Escapes text for a specification of zsh's _arguments within single quotes.
std::string ZshEscape(const std::string& text) {
  return absl::StrReplaceAll(text, {{"'", "'\\''"}, {"\\", "\\\\"}, {"[", "\\["}, {"]", "\\]"}, {":", "\\:"}});
}

std::string ZshAction(const std::vector<std::string>& words, bool paths) {
  if (paths) return "_files";
  return words.empty() ? " " : absl::StrCat("(", absl::StrJoin(words, " "), ")");
}

std::string ZshArguments(const ProgramCommand& command) {
  std::string arguments = "_arguments";
  for (const ProgramOption& option : command.options) {
    for (const std::string& name : option.names) {
      absl::StrAppend(&arguments, " \\\n        '*", name, option.value_optional ? "=-" : "", "[",
                      ZshEscape(option.help), "]");
      if (!option.value.empty()) {
        absl::StrAppend(&arguments, option.value_optional ? "::" : ":", ZshEscape(option.value), ":",
                        ZshAction(option.choices, option.is_path));
      }
      absl::StrAppend(&arguments, "'");
    }
  }
  if (command.operands_are_paths) absl::StrAppend(&arguments, " \\\n        '*:file:_files'");
  if (!command.operand_choices.empty()) {
    absl::StrAppend(&arguments, " \\\n        '1:word:", ZshAction(command.operand_choices, false), "'");
  }
  return arguments;
}

std::string ZshScript(const ProgramDescription& program) {
  std::string cases;
  for (const ProgramCommand& command : program.commands) {
    absl::StrAppend(&cases, "    ", command.name, ")\n      shift words; (( CURRENT-- ))\n      ",
                    ZshArguments(command), " ;;\n");
  }
  const std::string name = FunctionName(program);
  return absl::StrCat("#compdef ", program.name, "\n", name, "() {\n  case $words[2] in\n", cases, "    *)\n      ",
                      ZshArguments(CommandsOf(program).back()), " ;;\n  esac\n}\nif [ \"$funcstack[1]\" = ", name,
                      " ]; then ", name, " \"$@\"; else compdef ", name, " ", program.name, "; fi\n");
}

}  // namespace

absl::StatusOr<std::string> CompletionScript(const ProgramDescription& program, const std::string& shell) {
  if (shell == "bash") return BashScript(program);
  if (shell == "zsh") return ZshScript(program);
  return absl::InvalidArgumentError(absl::StrCat("no completion for the shell \"", shell, "\"; use bash or zsh"));
}

}  // namespace longembed
