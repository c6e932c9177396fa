// The limits of the control groups of this process: its own group and all groups above it.
#ifndef LONGEMBED_SYSTEM_CGROUP_H_
#define LONGEMBED_SYSTEM_CGROUP_H_

#include <cstdint>
#include <optional>
#include <string>

namespace longembed {

// One limit, and the file that sets it.
template <typename Value>
struct CgroupLimit {
  Value value;
  std::string file;
};

// The lowest limit of each kind that any of the groups sets; absent if none sets one.
struct CgroupLimits {
  std::optional<CgroupLimit<double>> cores;          // Seconds of CPU time per second: cpu.max, cpu.cfs_quota_us.
  std::optional<CgroupLimit<int64_t>> memory_bytes;  // memory.max, memory.limit_in_bytes.
  std::optional<CgroupLimit<int64_t>> tasks;         // Processes and threads together: pids.max.
};

// Reads control groups of version 1, version 2, or both at a time. A file that cannot be read sets no limit. `process`
// is a folder such as /proc/self, whose files mountinfo and cgroup locate the groups. Any thread may call it.
CgroupLimits ReadCgroupLimits(const std::string& process = "/proc/self");

}  // namespace longembed

#endif  // LONGEMBED_SYSTEM_CGROUP_H_
