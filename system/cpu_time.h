// The CPU time of this process, and which of its threads run or wait for a core.
#ifndef LONGEMBED_SYSTEM_CPU_TIME_H_
#define LONGEMBED_SYSTEM_CPU_TIME_H_

#include <sys/types.h>

#include "absl/time/time.h"

namespace longembed {

// Returns the CPU time that all threads of this process have used together. May be called on any thread.
absl::Duration ProcessCpuTime();

// Returns whether a thread of this process runs, or would run if it got a core. Returns false for a thread that waits
// for a lock, a device or a file, and if the system does not report it. May be called on any thread.
bool WantsCpu(pid_t thread);

}  // namespace longembed

#endif  // LONGEMBED_SYSTEM_CPU_TIME_H_
