// The arguments of longembed-server. One table of them makes --help, the man page and shell completion.
#ifndef LONGEMBED_SERVER_PROCESS_ARGUMENTS_H_
#define LONGEMBED_SERVER_PROCESS_ARGUMENTS_H_

#include <iostream>
#include <string>
#include <variant>
#include <vector>

#include "program/program.h"

namespace longembed {

// The arguments of a process that has a config.
struct ServerArguments {
  std::string config_path;
  bool check_config = false;
};

// Facts about the machine that arguments print.
struct MachineFacts {
  std::string libraries;                 // Behind the version.
  std::vector<std::string> cpu_kernels;  // Fastest first.
};

inline constexpr int kExitFailure = 1;  // The config refers to something unusable, or the server failed.
inline constexpr int kExitUsage = 2;    // The arguments or the config itself are wrong.

// The description that --help, --man and --completion print.
ProgramDescription DescribeServer(const std::string& version);

// Reads the arguments of a process, and answers those that ask for text. Returns the arguments of a server, or the exit
// status of a process that has nothing left to do. A wrong argument is named on `err`.
std::variant<ServerArguments, int> HandleArguments(int argc, char* const* argv, const std::string& version,
                                                   const MachineFacts& machine, std::ostream& out = std::cout,
                                                   std::ostream& err = std::cerr);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_PROCESS_ARGUMENTS_H_
