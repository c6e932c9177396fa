#include "system/cgroup.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"

namespace longembed {
namespace {

using Words = std::vector<std::string>;

// Returns the first line; empty if there is no such file.
std::string LineOf(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// A mounted hierarchy of control groups.
struct Mount {
  std::string root;    // Path of the group that the mount shows.
  std::string folder;  // Its mount point.
  bool unified;        // Whether it is of version 2.
  Words controllers;   // Version 1: the resources that the hierarchy limits, such as "memory".
};

// Parses lines such as "36 25 0:31 /docker/1f /sys/fs/cgroup/memory ro,relatime - cgroup cgroup rw,memory". Optional
// fields end with the dash.
std::vector<Mount> ReadMounts(const std::string& process) {
  std::vector<Mount> mounts;
  std::ifstream file(process + "/mountinfo");
  for (std::string line; std::getline(file, line);) {
    const std::vector<std::string> halves = absl::StrSplit(line, absl::MaxSplits(" - ", 1));
    if (halves.size() != 2) continue;
    const Words left = absl::StrSplit(halves[0], ' '), right = absl::StrSplit(halves[1], ' ');
    if (left.size() < 5 || right.size() < 3 || !absl::StartsWith(right[0], "cgroup")) continue;
    mounts.push_back({.root = left[3],
                      .folder = left[4],
                      .unified = right[0] == "cgroup2",
                      .controllers = absl::StrSplit(right[2], ',')});
  }
  return mounts;
}

// Returns the folder of the group `path` under the mount, or the mount's root if it is not visible, as in a namespace
// that the process was moved out of.
std::string FolderOf(const Mount& mount, const std::string& path) {
  if (absl::StrContains(path, "/..")) return mount.folder;
  if (mount.root == "/") return path == "/" ? mount.folder : mount.folder + path;
  if (path != mount.root && !absl::StartsWith(path, mount.root + "/")) return mount.folder;
  return mount.folder + path.substr(mount.root.size());
}

// Returns the folders of the process's group and of the groups above it, in the mounts of version 2 if `unified`, else
// in the version 1 mount of `controller`.
std::vector<std::string> GroupFolders(const std::string& process, const std::vector<Mount>& mounts, bool unified,
                                      const std::string& controller) {
  std::vector<std::string> folders;
  std::ifstream file(process + "/cgroup");
  for (std::string line; std::getline(file, line);) {  // "0::/group", or "4:cpu,cpuacct:/group".
    const Words fields = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() != 3) continue;
    const Words names = absl::StrSplit(fields[1], ',');
    if (unified ? !fields[1].empty() : std::find(names.begin(), names.end(), controller) == names.end()) continue;
    for (const Mount& mount : mounts) {
      const auto& limited = mount.controllers;
      if (mount.unified != unified) continue;
      if (!unified && std::find(limited.begin(), limited.end(), controller) == limited.end()) continue;
      std::string folder = FolderOf(mount, fields[2]);
      for (; folder.size() > mount.folder.size(); folder = std::filesystem::path(folder).parent_path().string()) {
        folders.push_back(folder);
      }
      folders.push_back(mount.folder);
    }
  }
  return folders;
}

std::optional<double> Cores(absl::string_view quota_and_period) {
  const Words words = absl::StrSplit(quota_and_period, ' ', absl::SkipEmpty());
  int64_t quota = 0, period = 0;
  if (words.size() != 2 || !absl::SimpleAtoi(words[0], &quota) || !absl::SimpleAtoi(words[1], &period)) return {};
  if (quota <= 0 || period <= 0) return {};
  return static_cast<double>(quota) / static_cast<double>(period);
}

std::optional<int64_t> Count(const std::string& text) {
  constexpr int64_t kUnlimited = int64_t{1} << 60;  // "No limit" is about 2^63 in version 1 and a word in version 2.
  int64_t count = 0;
  if (!absl::SimpleAtoi(text, &count) || count >= kUnlimited) return {};
  return count;
}

template <typename Value>
void Lower(std::optional<CgroupLimit<Value>>& limit, const std::optional<Value>& value, const std::string& file) {
  if (value.has_value() && (!limit.has_value() || *value < limit->value)) limit = {*value, file};
}

}  // namespace

CgroupLimits ReadCgroupLimits(const std::string& process) {
  const std::vector<Mount> mounts = ReadMounts(process);
  CgroupLimits limits;
  for (const std::string& folder : GroupFolders(process, mounts, /*unified=*/true, "")) {
    Lower(limits.cores, Cores(LineOf(folder + "/cpu.max")), folder + "/cpu.max");
    Lower(limits.memory_bytes, Count(LineOf(folder + "/memory.max")), folder + "/memory.max");
    Lower(limits.tasks, Count(LineOf(folder + "/pids.max")), folder + "/pids.max");
  }
  for (const std::string& folder : GroupFolders(process, mounts, /*unified=*/false, "cpu")) {
    const std::string quota = folder + "/cpu.cfs_quota_us";
    Lower(limits.cores, Cores(absl::StrCat(LineOf(quota), " ", LineOf(folder + "/cpu.cfs_period_us"))), quota);
  }
  for (const std::string& folder : GroupFolders(process, mounts, /*unified=*/false, "memory")) {
    const std::string file = folder + "/memory.limit_in_bytes";
    Lower(limits.memory_bytes, Count(LineOf(file)), file);
  }
  for (const std::string& folder : GroupFolders(process, mounts, /*unified=*/false, "pids")) {
    Lower(limits.tasks, Count(LineOf(folder + "/pids.max")), folder + "/pids.max");
  }
  return limits;
}

}  // namespace longembed
