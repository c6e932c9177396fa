#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <iostream>
#include <stop_token>
#include <thread>

#include "client/cli/command_line.h"

namespace {

// Ends the process on SIGINT, SIGTERM or SIGHUP, after the output ends with a complete line. The process dies by that
// signal. A second signal ends the process at once. Signals that the parent process ignores (nohup) stay ignored. Must
// be called before other threads start, because they inherit the blocked signals.
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

// Opens /dev/null for each standard stream that the parent process closed. Otherwise the first socket would get that
// descriptor, and output would go to the socket. The access mode is the wrong one on purpose, so reading standard input
// and writing the other streams remain errors.
void OccupyClosedStreams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(stream, F_GETFD) != -1) continue;
    // open() uses the lowest free descriptor.
    static_cast<void>(open("/dev/null", stream == STDIN_FILENO ? O_WRONLY : O_RDONLY));
  }
}

}  // namespace

int main(int argc, char** argv) {
  OccupyClosedStreams();
  // With these signals ignored, a closed pipe or a file-size limit appears as a failed write, which leads to a message
  // and an exit status.
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
