#include "system/host_limits.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>

#include "system/cores.h"

namespace longembed {
namespace {

// Returns RLIMIT_NPROC, which the kernel does not apply to root.
std::optional<int64_t> UserThreads() {
  rlimit limit{};
  if (geteuid() == 0 || getrlimit(RLIMIT_NPROC, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return {};
  return static_cast<int64_t>(limit.rlim_cur);
}

}  // namespace

int RaiseDescriptorLimit() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  getrlimit(RLIMIT_NOFILE, &limit);
  return static_cast<int>(std::min<rlim_t>(limit.rlim_cur, 1 << 30));
}

HostLimits ReadHostLimits() {
  return {.cores = AvailableCores(),
          .descriptors = RaiseDescriptorLimit(),
          .user_threads = UserThreads(),
          .cgroup = ReadCgroupLimits()};
}

}  // namespace longembed
