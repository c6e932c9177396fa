#include "system/cgroup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "system/cores.h"
#include "system/host_limits.h"

namespace longembed {
namespace {

using ::testing::EndsWith;

// Creates a folder like /proc/self, and cgroups below another folder.
class CgroupTest : public ::testing::Test {
 protected:
  CgroupTest() { std::filesystem::create_directories(folder_); }
  ~CgroupTest() override { std::filesystem::remove_all(folder_); }

  void Write(const std::string& file, const std::string& content) {
    std::filesystem::create_directories(std::filesystem::path(folder_ + "/" + file).parent_path());
    std::ofstream(folder_ + "/" + file) << content;
  }
  // Reads the limits for these mounts and cgroups of the process. $ stands for the folder of the cgroup files.
  CgroupLimits Read(std::string mountinfo, const std::string& cgroup) {
    for (size_t at; (at = mountinfo.find('$')) != std::string::npos;) mountinfo.replace(at, 1, folder_ + "/fs");
    Write("mountinfo", "24 1 8:1 / / rw - ext4 /dev/sda rw\n" + mountinfo);
    Write("cgroup", cgroup);
    return ReadCgroupLimits(folder_);
  }

  const std::string folder_ = absl::StrCat(::testing::TempDir(), "cgroup_", getpid());
};

constexpr char kVersion2[] = "30 24 0:26 / $ rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

TEST_F(CgroupTest, TheLowestLimitOfTheGroupAndThoseAboveCounts) {
  Write("fs/system.slice/cpu.max", "150000 100000\n");
  Write("fs/system.slice/memory.max", "8589934592\n");
  Write("fs/system.slice/pids.max", "100\n");
  Write("fs/system.slice/a.service/cpu.max", "400000 100000\n");
  Write("fs/system.slice/a.service/memory.max", "536870912\n");
  Write("fs/system.slice/a.service/pids.max", "max\n");
  const CgroupLimits limits = Read(kVersion2, "0::/system.slice/a.service\n");
  ASSERT_TRUE(limits.cores.has_value() && limits.memory_bytes.has_value() && limits.tasks.has_value());
  EXPECT_EQ(limits.cores->value, 1.5);
  EXPECT_THAT(limits.cores->file, EndsWith("/fs/system.slice/cpu.max"));
  EXPECT_EQ(limits.memory_bytes->value, 536870912);
  EXPECT_THAT(limits.memory_bytes->file, EndsWith("/fs/system.slice/a.service/memory.max"));
  EXPECT_EQ(limits.tasks->value, 100);
}

TEST_F(CgroupTest, GroupsBesideItDoNotCount) {
  Write("fs/a/memory.max", "1000\n");
  Write("fs/ab/memory.max", "2000\n");
  Write("fs/ab/c/memory.max", "500\n");
  EXPECT_EQ(Read(kVersion2, "0::/ab\n").memory_bytes->value, 2000);
}

TEST_F(CgroupTest, AContainerSeesItsGroupAsTheRoot) {
  Write("fs/cpu.max", "250000 100000\n");
  EXPECT_EQ(Read(kVersion2, "0::/\n").cores->value, 2.5);
  // Without a cgroup namespace, the path is the host's, but the mount shows only the container's group.
  const char* const mount = "30 24 0:26 /docker/1f $ ro - cgroup2 cgroup rw\n";
  EXPECT_EQ(Read(mount, "0::/docker/1f\n").cores->value, 2.5);
  Write("fs/inner/cpu.max", "100000 100000\n");
  Write("elsewhere/cpu.max", "50000 100000\n");
  EXPECT_EQ(Read(mount, "0::/docker/1f/inner\n").cores->value, 1);
  EXPECT_EQ(Read(mount, "0::/docker/1fe\n").cores->value, 2.5);
  EXPECT_EQ(Read(kVersion2, "0::/../elsewhere\n").cores->value, 2.5);
}

TEST_F(CgroupTest, Version1HasAHierarchyForEachController) {
  Write("fs/cpu,cpuacct/a/cpu.cfs_quota_us", "400000\n");
  Write("fs/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n");
  Write("fs/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
  Write("fs/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  Write("fs/memory/b/c/memory.limit_in_bytes", "9223372036854771712\n");
  Write("fs/memory/b/memory.limit_in_bytes", "8589934592\n");
  Write("fs/pids/pids.max", "77\n");
  const CgroupLimits limits = Read(
      "31 24 0:29 / $/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
      "32 24 0:30 / $/memory rw - cgroup cgroup rw,memory\n"
      "33 24 0:31 / $/pids rw - cgroup cgroup rw,pids\n",
      "5:pids:/a\n4:memory:/b/c\n3:cpu,cpuacct:/a\n0::/\n");
  ASSERT_TRUE(limits.cores.has_value() && limits.memory_bytes.has_value() && limits.tasks.has_value());
  EXPECT_EQ(limits.cores->value, 4);
  EXPECT_EQ(limits.memory_bytes->value, int64_t{8} << 30);
  EXPECT_EQ(limits.tasks->value, 77);
}

TEST_F(CgroupTest, WithoutValidFilesThereAreNoLimits) {
  const CgroupLimits nothing = ReadCgroupLimits(folder_ + "/nonexistent");
  EXPECT_FALSE(nothing.cores.has_value() || nothing.memory_bytes.has_value() || nothing.tasks.has_value());
  for (const char* text : {"max 100000\n", "", "1", "a b", "-1 100000", "100000 0", "0 100000"}) {
    Write("fs/cpu.max", text);
    EXPECT_FALSE(Read(kVersion2, "0::/\n").cores.has_value()) << text;
  }
}

TEST(CoresTest, ThereIsAtLeastOne) { EXPECT_GE(AvailableCores(), 1); }

TEST(DescriptorsTest, TheLimitIsRaisedAsFarAsItGoes) {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  const rlimit low{.rlim_cur = std::min<rlim_t>(64, limit.rlim_max), .rlim_max = limit.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
  EXPECT_EQ(static_cast<rlim_t>(RaiseDescriptorLimit()), std::min<rlim_t>(limit.rlim_max, 1 << 30));
  setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace
}  // namespace longembed
