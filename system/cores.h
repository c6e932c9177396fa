// Counts the cores that this process may use.
#ifndef LONGEMBED_SYSTEM_CORES_H_
#define LONGEMBED_SYSTEM_CORES_H_

namespace longembed {

// The lesser of the cores that the scheduler lets it run on and the quota of its control groups, rounded up: more
// threads than that would only be throttled. At least 1.
int AvailableCores();

}  // namespace longembed

#endif  // LONGEMBED_SYSTEM_CORES_H_
