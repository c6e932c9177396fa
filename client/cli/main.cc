#include <unistd.h>

#include <csignal>
#include <iostream>
#include <stop_token>
#include <thread>

#include "client/cli/command_line.h"

namespace {

// Ends the process on SIGINT, SIGTERM or SIGHUP, by that signal, once the output ends with a whole line. A second
// signal ends it at once. Signals that the parent ignores (nohup) stay ignored. To be called before other threads
// start, which inherit the blocked signals.
void EndOnSignals(std::stop_source interrupt) {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction action;
    if (sigaction(signal, nullptr, &action) == 0 && action.sa_handler != SIG_IGN) sigaddset(&signals, signal);
  }
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::thread([signals, interrupt]() mutable {
    int signal = 0;
    sigwait(&signals, &signal);
    pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
    interrupt.request_stop();
    std::raise(signal);
  }).detach();
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);  // A closed reader shows as a failed write, with an exit status and a message.
  std::ios::sync_with_stdio(false);
  std::stop_source interrupt;
  EndOnSignals(interrupt);
  return longembed::client::RunCommandLine(argc, argv,
                                           {.in = std::cin,
                                            .out = std::cout,
                                            .err = std::cerr,
                                            .err_is_terminal = isatty(STDERR_FILENO) == 1,
                                            .interrupt = interrupt.get_token()});
}
