// The description of a command-line program: what its man page and its shell completion are made from. Plain values.
#ifndef LONGEMBED_PROGRAM_PROGRAM_H_
#define LONGEMBED_PROGRAM_PROGRAM_H_

#include <string>
#include <utility>
#include <vector>

namespace longembed {

struct ProgramOption {
  std::vector<std::string> names;  // "--config"; several for one that has short forms.
  std::string value;               // Name of the value, such as FILE. Empty: a flag.
  bool value_optional = false;     // The value may be left out, and follows "=" where it is there.
  bool is_path = false;            // The value is a file.
  std::vector<std::string> choices;
  std::string help;
};

struct ProgramCommand {
  std::string name;
  std::string summary;
  std::vector<ProgramOption> options;
  std::string operands;  // Such as "[FILE...]". Empty: none.
  bool operands_are_paths = false;
  std::vector<std::string> operand_choices;
};

// A titled part of the man page; a paragraph each line.
struct ProgramSection {
  std::string title;
  std::vector<std::string> paragraphs;
};

struct ProgramDescription {
  std::string name;
  std::string summary;
  std::string version;
  int manual_section = 1;              // 1: commands; 8: servers.
  std::vector<ProgramOption> options;  // Of the program itself, before any command.
  std::vector<ProgramCommand> commands;
  std::vector<ProgramSection> sections;
};

}  // namespace longembed

#endif  // LONGEMBED_PROGRAM_PROGRAM_H_
