// Handles signals from the first line of main to the last. (Before, while the loader maps LibTorch for some tenths of a
// second, they have their default actions.)
//
// * SIGTERM, SIGINT, SIGQUIT, SIGXCPU: before the server serves, end the process at once, with exit status 0. While it
//   serves: drain. A second one cuts the drain short, a third ends the process.
// * SIGHUP: reload the config's log section, certificates and API keys.
// * SIGPIPE, SIGXFSZ: ignored; a closed peer and a file at its limit are errors of the write.
// * Every other one whose default would end the process: ignored. Faults of the program itself (SIGSEGV, SIGABRT and
//   the like) keep their default, and SIGKILL cannot be caught.
#ifndef LONGEMBED_SERVER_PROCESS_SIGNALS_H_
#define LONGEMBED_SERVER_PROCESS_SIGNALS_H_

#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "system/mutex.h"

namespace longembed {

// Blocks the signals that are waited for and ignores the others. REQUIRES: no other thread runs yet, as threads inherit
// what is blocked.
void BlockSignals();

// Ends the process with exit status 1, saying `why` in the log, unless it has ended by itself within `grace`. For what
// may block forever, such as a drain beside a device that hangs.
void ForceExitAfter(absl::Duration grace, const char* why);

// Such as "SIGTERM".
std::string SignalName(int signal);

// Takes the signals, on a thread of its own that lives as long as the process. One instance, which is never destroyed.
// Multiple threads can call its methods without external synchronization.
class ProcessSignals {
 public:
  struct Event {
    int stop = 0;  // The first signal that asks the process to end; 0: none has come.
    bool reload = false;
  };

  // REQUIRES: BlockSignals.
  ProcessSignals();

  // From now on the caller handles stop signals; before, they end the process.
  void StartServing();

  // Waits for an event, at most for `timeout`. A reload is returned once, a stop from then on.
  Event Await(absl::Duration timeout);

  // Waits for a second stop signal, at most for `timeout`. Returns whether one has come.
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
