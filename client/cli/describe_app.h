// Converts CLI11's description of the command line to a ProgramDescription. The man page, shell completion and
// suggestions for misspelled options use it.
#ifndef LONGEMBED_CLIENT_CLI_DESCRIBE_APP_H_
#define LONGEMBED_CLIENT_CLI_DESCRIBE_APP_H_

#include <string>
#include <vector>

#include "program/program.h"

namespace CLI {
class App;
}

namespace longembed::client {

// Returns the name, summary, options and commands of `app`, as its --help lists them.
ProgramDescription DescribeApp(const CLI::App& app);

// Returns a message for arguments that CLI11 refused, in cases where CLI11's own message would name the wrong argument:
// a misspelled command or option whose value CLI11 takes for a file, an option before the command, or a value that must
// follow "=". Returns "" in all other cases. `words` excludes the program's name.
std::string ExplainMisuse(const ProgramDescription& program, const std::vector<std::string>& words);

// Returns the first flag that has an empty value, such as "--windows" of "--windows=". CLI11 takes it for a flag
// without a value. Returns "" if there is none. `words` excludes the program's name.
std::string FindEmptyFlag(const ProgramDescription& program, const std::vector<std::string>& words);

}  // namespace longembed::client

#endif  // LONGEMBED_CLIENT_CLI_DESCRIBE_APP_H_
