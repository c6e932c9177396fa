// The cores, memory, descriptors and threads that this process may use, read once at its start.
#ifndef LONGEMBED_SYSTEM_HOST_LIMITS_H_
#define LONGEMBED_SYSTEM_HOST_LIMITS_H_

#include <cstdint>
#include <optional>

#include "system/cgroup.h"

namespace longembed {

struct HostLimits {
  int cores = 1;                        // AvailableCores().
  int64_t descriptors = 0;              // RLIMIT_NOFILE.
  std::optional<int64_t> user_threads;  // RLIMIT_NPROC, for all processes of this user; absent: unlimited, or root.
  CgroupLimits cgroup;
};

// Reads the limits, after raising the limit on descriptors to its maximum.
HostLimits ReadHostLimits();

// Raises the limit on descriptors to its maximum, and returns it.
int RaiseDescriptorLimit();

}  // namespace longembed

#endif  // LONGEMBED_SYSTEM_HOST_LIMITS_H_
