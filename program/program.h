// The description of a command-line program, from which its man page and its shell completion are generated. Plain
// values.
#ifndef LONGEMBED_PROGRAM_PROGRAM_H_
#define LONGEMBED_PROGRAM_PROGRAM_H_

#include <string>
#include <utility>
#include <vector>

namespace longembed {

struct ProgramOption {
  std::vector<std::string> names;  // Such as "--config"; several if there are short forms.
  std::string value;               // Name of the value, such as FILE. Empty: a flag.
  bool value_optional = false;     // The value may be omitted; if present, it follows "=".
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

// A titled section of the man page.
struct ProgramSection {
  std::string title;
  std::vector<std::string> paragraphs;
};

struct ProgramDescription {
  std::string name;
  std::string summary;
  std::string version;
  int manual_section = 1;              // 1: commands; 8: servers.
  std::string needed;                  // Options that must be given, such as "--config FILE".
  std::vector<ProgramOption> options;  // Options of the program itself, before any command.
  std::vector<ProgramCommand> commands;
  std::vector<ProgramSection> sections;
};

}  // namespace longembed

#endif  // LONGEMBED_PROGRAM_PROGRAM_H_
