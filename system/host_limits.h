// The cores and the memory that this process may use, read once at its start.
#ifndef LONGEMBED_SYSTEM_HOST_LIMITS_H_
#define LONGEMBED_SYSTEM_HOST_LIMITS_H_

#include <cstdint>
#include <optional>

#include "system/cgroup.h"

namespace longembed {

struct HostLimits {
  int cores = 1;                        // AvailableCores.
  int64_t descriptors = 0;              // RLIMIT_NOFILE.
  std::optional<int64_t> user_threads;  // RLIMIT_NPROC, of all processes of this user; absent: unlimited, or root.
  CgroupLimits cgroup;
};

// Raises the limit on descriptors as far as it may be raised before it is read.
HostLimits ReadHostLimits();

// Raises the limit on descriptors as far as it may be raised, and returns it.
int RaiseDescriptorLimit();

}  // namespace longembed

#endif  // LONGEMBED_SYSTEM_HOST_LIMITS_H_
