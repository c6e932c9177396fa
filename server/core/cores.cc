#include "server/core/cores.h"

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace longembed {
namespace {

// A container sees its own cgroup there.
constexpr char kCgroup[] = "/sys/fs/cgroup";

// The first line; empty where there is no such file.
std::string LineOf(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

}  // namespace

int CoresOfQuota(std::string_view cpu_max) {
  const std::vector<std::string> fields =
      absl::StrSplit(absl::string_view(cpu_max.data(), cpu_max.size()), absl::ByAnyChar(" \n"), absl::SkipEmpty());
  int64_t quota = 0, period = 0;
  if (fields.size() != 2 || !absl::SimpleAtoi(fields[0], &quota) || !absl::SimpleAtoi(fields[1], &period)) return 0;
  if (quota <= 0 || period <= 0) return 0;
  return static_cast<int>((quota + period - 1) / period);
}

int CoresOfCgroup(const std::string& folder) {
  const std::string cpu_max = LineOf(folder + "/cpu.max");
  if (!cpu_max.empty()) return CoresOfQuota(cpu_max);
  return CoresOfQuota(
      absl::StrCat(LineOf(folder + "/cpu/cpu.cfs_quota_us"), " ", LineOf(folder + "/cpu/cpu.cfs_period_us")));
}

int AvailableCores() {
  int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  // hardware_concurrency counts cores that this process may not run on, too.
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) == 0) cores = std::clamp(CPU_COUNT(&allowed), 1, cores);
  const int quota = CoresOfCgroup(kCgroup);
  return quota > 0 ? std::min(cores, quota) : cores;
}

}  // namespace longembed
