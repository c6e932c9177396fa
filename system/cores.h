// Counts the cores that this process may use.
#ifndef LONGEMBED_SYSTEM_CORES_H_
#define LONGEMBED_SYSTEM_CORES_H_

namespace longembed {

// Returns the lower of two numbers, at least 1: the cores that the scheduler lets this process run on, and the CPU
// quota of its control groups, rounded up. More threads than that would only be throttled.
int AvailableCores();

}  // namespace longembed

#endif  // LONGEMBED_SYSTEM_CORES_H_
