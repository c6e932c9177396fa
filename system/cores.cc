#include "system/cores.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <thread>

#include "system/cgroup.h"

namespace longembed {

int AvailableCores() {
  int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  // hardware_concurrency also counts cores that this process may not run on.
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0) cores = std::clamp(CPU_COUNT(&allowed), 1, cores);
  const CgroupLimits limits = ReadCgroupLimits();
  if (!limits.cores.has_value()) return cores;
  return static_cast<int>(std::clamp(std::ceil(limits.cores->value), 1.0, static_cast<double>(cores)));
}

}  // namespace longembed
