// Tests signals. Each test runs in a process of its own.
#include "server/process/signals.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>

namespace longembed {
namespace {

class SignalsDeathTest : public ::testing::Test {
 protected:
  SignalsDeathTest() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }

  static ProcessSignals& Start() {
    BlockSignals();
    return *new ProcessSignals;
  }
  // Sends a signal and waits until it has been taken. Otherwise, equal pending signals would be merged.
  static void Send(ProcessSignals& signals, int signal) {
    kill(getpid(), signal);
    sigset_t pending;
    do {
      signals.AwaitSecondSignal(absl::Milliseconds(1));
      sigpending(&pending);
    } while (sigismember(&pending, signal) == 1);
  }
};

TEST_F(SignalsDeathTest, AStopBeforeItServesEndsTheProcess) {
  for (const int signal : {SIGTERM, SIGINT, SIGQUIT, SIGXCPU}) {
    EXPECT_EXIT(
        {
          Start();
          kill(getpid(), signal);
          pause();
        },
        ::testing::ExitedWithCode(0), "stopped before serving.*" + SignalName(signal));
  }
}

TEST_F(SignalsDeathTest, AStopWhileItServesIsReturnedToTheCaller) {
  EXPECT_EXIT(
      {
        ProcessSignals& signals = Start();
        signals.StartServing();
        Send(signals, SIGHUP);
        const ProcessSignals::Event reload = signals.Await(absl::Seconds(20));
        Send(signals, SIGQUIT);
        const ProcessSignals::Event stop = signals.Await(absl::Seconds(20));
        const bool second_after_one = signals.AwaitSecondSignal(absl::ZeroDuration());
        Send(signals, SIGTERM);
        const bool second_after_two = signals.AwaitSecondSignal(absl::Seconds(20));
        _exit(reload.reload && reload.stop == 0 && !stop.reload && stop.stop == SIGQUIT && !second_after_one &&
                      second_after_two
                  ? 7
                  : 8);
      },
      ::testing::ExitedWithCode(7), "");
}

TEST_F(SignalsDeathTest, AThirdStopEndsTheProcess) {
  EXPECT_EXIT(
      {
        ProcessSignals& signals = Start();
        signals.StartServing();
        for (const int signal : {SIGTERM, SIGINT, SIGTERM}) Send(signals, signal);
        pause();
      },
      ::testing::ExitedWithCode(1), "forced exit after a third signal");
}

TEST_F(SignalsDeathTest, OthersAreIgnored) {
  EXPECT_EXIT(
      {
        Start();
        for (int signal = 1; signal < SIGRTMAX; ++signal) {
          const bool stops = signal == SIGTERM || signal == SIGINT || signal == SIGQUIT || signal == SIGXCPU;
          const bool fault = signal == SIGSEGV || signal == SIGBUS || signal == SIGFPE || signal == SIGILL ||
                             signal == SIGABRT || signal == SIGTRAP || signal == SIGSYS;
          const bool pauses = signal == SIGSTOP || signal == SIGTSTP || signal == SIGTTIN || signal == SIGTTOU;
          const bool libc = signal >= 32 && signal < SIGRTMIN;
          if (!stops && !fault && !pauses && !libc && signal != SIGKILL) kill(getpid(), signal);
        }
        _exit(7);
      },
      ::testing::ExitedWithCode(7), "");
}

TEST_F(SignalsDeathTest, AProcessThatDoesNotEndIsEndedByForce) {
  EXPECT_EXIT(
      {
        ForceExitAfter(absl::Milliseconds(1), "it hangs");
        pause();
      },
      ::testing::ExitedWithCode(1), "it hangs");
}

}  // namespace
}  // namespace longembed
