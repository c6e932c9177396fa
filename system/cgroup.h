// The limits of the control groups that this process is in: its own and every one above it.
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

// The lowest of each kind that any of the groups sets; absent where none does.
struct CgroupLimits {
  std::optional<CgroupLimit<double>> cores;          // Of CPU time a second: cpu.max, cpu.cfs_quota_us.
  std::optional<CgroupLimit<int64_t>> memory_bytes;  // memory.max, memory.limit_in_bytes.
  std::optional<CgroupLimit<int64_t>> tasks;         // Processes and threads together: pids.max.
};

// Reads versions 1 and 2, also both at a time. What cannot be read sets no limit. `process` is a folder such as
// /proc/self, whose mountinfo and cgroup say where the groups' files are. Any thread.
CgroupLimits ReadCgroupLimits(const std::string& process = "/proc/self");

}  // namespace longembed

#endif  // LONGEMBED_SYSTEM_CGROUP_H_
