// How many cores this process may use.
#ifndef LONGEMBED_SERVER_CORE_CORES_H_
#define LONGEMBED_SERVER_CORE_CORES_H_

#include <string>
#include <string_view>

namespace longembed {

// The lesser of the cores that the scheduler lets it run on and the container's quota, rounded up: more threads than
// that would only be throttled. At least 1.
int AvailableCores();

// The quota in cores of the cgroup whose files are in `folder`, of version 2 (cpu.max) or 1 (cpu/cpu.cfs_quota_us and
// cpu.cfs_period_us), rounded up; 0 when there is none or it cannot be read.
int CoresOfCgroup(const std::string& folder);

// The quota in cores of a cgroup's cpu.max ("200000 100000" is 2), rounded up; 0 when there is none or it cannot be
// read.
int CoresOfQuota(std::string_view cpu_max);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_CORE_CORES_H_
