#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
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

// Occupies standard streams that the parent closed. Else the first socket would take the number of one, and the output
// would go there. Reading standard input and writing the others stays an error.
void OccupyClosedStreams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(stream, F_GETFD) != -1) continue;
    static_cast<void>(open("/dev/null", stream == STDIN_FILENO ? O_WRONLY : O_RDONLY));  // Takes the lowest number.
  }
}

}  // namespace

int main(int argc, char** argv) {
  OccupyClosedStreams();
  // A closed reader and a limit on a file's size show as a failed write, with an exit status and a message.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  std::ios::sync_with_stdio(false);
  // Turns off gRPC's own log; the command prints its own messages.
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  std::stop_source interrupt;
  EndOnSignals(interrupt);
  return longembed::client::RunCommandLine(argc, argv,
                                           {.in = std::cin,
                                            .out = std::cout,
                                            .err = std::cerr,
                                            .err_is_terminal = isatty(STDERR_FILENO) == 1,
                                            .interrupt = interrupt.get_token()});
}
