// Converts CLI11's description of the command line to a ProgramDescription, for the man page, shell completion and
// suggestions for misspelled options.
#ifndef LONGEMBED_CLIENT_CLI_DESCRIBE_APP_H_
#define LONGEMBED_CLIENT_CLI_DESCRIBE_APP_H_

#include <string>
#include <vector>

#include "program/program.h"

namespace CLI {
class App;
}

namespace longembed::client {

// The name, summary, options and commands of `app`, as its --help lists them.
ProgramDescription DescribeApp(const CLI::App& app);

// Describes the error in arguments that CLI11 refused, where CLI11 would name the wrong one: a misspelled command or
// option, whose value it takes for a file; an option before the command; a value that has to follow "=". Returns ""
// where the words have none of these faults. `words` are without the program's name.
std::string ExplainMisuse(const ProgramDescription& program, const std::vector<std::string>& words);

}  // namespace longembed::client

#endif  // LONGEMBED_CLIENT_CLI_DESCRIBE_APP_H_
