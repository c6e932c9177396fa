#include <unistd.h>

#include <csignal>
#include <iostream>

#include "client/cli/command_line.h"

int main(int argc, char** argv) {
  // A reader that went away shows as a failed write, which has an exit status and words.
  std::signal(SIGPIPE, SIG_IGN);
  std::ios::sync_with_stdio(false);
  return longembed::client::RunCommandLine(
      argc, argv, {.in = std::cin, .out = std::cout, .err = std::cerr, .err_is_terminal = isatty(STDERR_FILENO) == 1});
}
