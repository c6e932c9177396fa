// The arguments of longembed-server. --help, the man page and shell completion are made from one table of them.
#ifndef LONGEMBED_SERVER_PROCESS_ARGUMENTS_H_
#define LONGEMBED_SERVER_PROCESS_ARGUMENTS_H_

#include <iostream>
#include <string>
#include <variant>
#include <vector>

#include "program/program.h"

namespace longembed {

// The arguments of a process that needs a config.
struct ServerArguments {
  std::string config_path;
  bool check_config = false;
};

// Facts about the machine that some arguments print.
struct MachineFacts {
  std::string libraries;                 // Printed after the version.
  std::vector<std::string> cpu_kernels;  // Fastest first.
};

inline constexpr int kExitFailure = 1;  // The config refers to something unusable, or the server failed.
inline constexpr int kExitUsage = 2;    // The arguments or the config itself are wrong.

// Returns the description that --help, --man and --completion print.
ProgramDescription DescribeServer(const std::string& version);

// Parses the arguments of a process, and answers those that print text. Returns the arguments of a server, or the exit
// status of a process that has nothing more to do. An error on `err` names the wrong argument.
std::variant<ServerArguments, int> HandleArguments(int argc, char* const* argv, const std::string& version,
                                                   const MachineFacts& machine, std::ostream& out = std::cout,
                                                   std::ostream& err = std::cerr);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_PROCESS_ARGUMENTS_H_
