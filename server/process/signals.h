// Handles signals from the first line of main on. (Before that, while the loader maps LibTorch for some tenths of a
// second, signals have their default actions.)
//
// * SIGTERM, SIGINT, SIGQUIT, SIGXCPU: before the server serves, they end the process at once with exit status 0. While
//   it serves, the first drains the server, a second cuts the drain short, and a third ends the process. SIGXCPU, which
//   the system repeats, counts only as the first.
// * SIGHUP: reloads the config's log section, certificates and API keys.
// * SIGPIPE, SIGXFSZ: ignored. A write to a closed peer, or to a file at its size limit, returns an error.
// * All other signals that would end the process by default are ignored. Faults of the program itself (SIGSEGV, SIGABRT
//   and the like) keep their default action, and SIGKILL cannot be caught.
#ifndef LONGEMBED_SERVER_PROCESS_SIGNALS_H_
#define LONGEMBED_SERVER_PROCESS_SIGNALS_H_

#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "system/mutex.h"

namespace longembed {

// Blocks the signals that ProcessSignals waits for and ignores the others. REQUIRES: no other thread runs yet, because
// threads inherit the mask of blocked signals.
void BlockSignals();

// Ends the process after `grace` with exit status 1, and logs `why`, unless it has ended before. For work that may
// block forever, such as a drain with a device that hangs.
void ForceExitAfter(absl::Duration grace, const char* why);

// Returns the name of a signal, such as "SIGTERM".
std::string SignalName(int signal);

// Receives the signals on a thread of its own, which lives as long as the process. There is one instance, which is
// never destroyed. Multiple threads can call its methods without external synchronization.
class ProcessSignals {
 public:
  struct Event {
    int stop = 0;  // The first signal that asks the process to end; 0: none yet.
    bool reload = false;
  };

  // REQUIRES: BlockSignals has been called.
  ProcessSignals();

  // From now on the caller handles stop signals. Until then they end the process.
  void StartServing();

  // Waits for an event for at most `timeout`. Returns a reload once; returns a stop from its arrival on.
  Event Await(absl::Duration timeout);

  // Waits for a second stop signal for at most `timeout`. Returns whether one has arrived.
  bool AwaitSecondSignal(absl::Duration timeout);

 private:
  void Run();
  void Handle(int signal);
  void HandleStop(int signal) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Mutex mutex_;
  ConditionVariable changed_;
  bool serving_ ABSL_GUARDED_BY(mutex_) = false;
  int stops_ ABSL_GUARDED_BY(mutex_) = 0;
  Event event_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_PROCESS_SIGNALS_H_
