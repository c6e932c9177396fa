#include "server/process/signals.h"

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "server/telemetry/log.h"

namespace longembed {
namespace {

sigset_t AwaitedSignals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGINT, SIGQUIT, SIGXCPU, SIGHUP}) sigaddset(&set, signal);
  return set;
}

[[noreturn]] void ExitNow(int status) {
  FlushLog(absl::Seconds(1));
  std::_Exit(status);
}

}  // namespace

std::string SignalName(int signal) { return std::string("SIG") + sigabbrev_np(signal); }

void BlockSignals() {
  const sigset_t awaited = AwaitedSignals();
  pthread_sigmask(SIG_BLOCK, &awaited, nullptr);
  for (const int signal : {SIGPIPE, SIGXFSZ, SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGPOLL, SIGPWR, SIGSTKFLT})
    std::signal(signal, SIG_IGN);
  for (int signal = SIGRTMIN; signal <= SIGRTMAX; ++signal) std::signal(signal, SIG_IGN);
}

void ForceExitAfter(absl::Duration grace, const char* why) {
  std::thread([grace, why] {
    absl::SleepFor(grace);
    Log(LogLevel::kError, why, {{"after_seconds", absl::ToDoubleSeconds(grace)}});
    ExitNow(EXIT_FAILURE);
  }).detach();
}

ProcessSignals::ProcessSignals() {
  std::thread([this] { Run(); }).detach();
}

void ProcessSignals::StartServing() {
  const MutexLock lock(mutex_);
  serving_ = true;
}

ProcessSignals::Event ProcessSignals::Await(absl::Duration timeout) {
  MutexLock lock(mutex_);
  changed_.WaitFor(lock, timeout,
                   [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return event_.stop != 0 || event_.reload; });
  return std::exchange(event_, {.stop = event_.stop});
}

bool ProcessSignals::AwaitSecondSignal(absl::Duration timeout) {
  MutexLock lock(mutex_);
  return changed_.WaitFor(lock, timeout, [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stops_ > 1; });
}

void ProcessSignals::Run() {
  const sigset_t awaited = AwaitedSignals();
  while (true) {
    int signal = 0;
    if (sigwait(&awaited, &signal) == 0) Handle(signal);
  }
}

void ProcessSignals::Handle(int signal) {
  {
    const MutexLock lock(mutex_);
    if (signal == SIGHUP) {
      event_.reload = true;
    } else {
      HandleStop(signal);
    }
  }
  changed_.NotifyAll();
}

void ProcessSignals::HandleStop(int signal) {
  constexpr absl::Duration kGrace = absl::Seconds(10);
  if (signal == SIGXCPU && stops_ > 0) return;  // The system sends it every second until the process ends.
  if (!serving_) {
    Log(LogLevel::kInfo, "stopped before serving", {{"signal", SignalName(signal)}});
    ExitNow(EXIT_SUCCESS);
  }
  ++stops_;
  if (stops_ == 1) {
    event_.stop = signal;
  } else if (stops_ == 2) {
    ForceExitAfter(kGrace, "forced exit: shutdown did not finish after a second signal");
  } else {
    Log(LogLevel::kError, "forced exit after a third signal", {{"signal", SignalName(signal)}});
    ExitNow(EXIT_FAILURE);
  }
}

}  // namespace longembed
