#include "server/core/cores.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace longembed {
namespace {

TEST(CoresTest, AQuotaIsRoundedUp) {
  EXPECT_EQ(CoresOfQuota("200000 100000\n"), 2);
  EXPECT_EQ(CoresOfQuota("150000 100000"), 2);
  EXPECT_EQ(CoresOfQuota("50000 100000"), 1);
}

TEST(CoresTest, NoQuotaIsZero) {
  for (const char* text : {"max 100000\n", "", "1", "a b", "-1 100000", "100000 0"})
    EXPECT_EQ(CoresOfQuota(text), 0) << text;
}

// A folder such as /sys/fs/cgroup.
class CgroupTest : public ::testing::Test {
 protected:
  CgroupTest() { std::filesystem::create_directories(folder_ + "/cpu"); }
  ~CgroupTest() override { std::filesystem::remove_all(folder_); }
  void Write(const std::string& name, const std::string& content) { std::ofstream(folder_ + "/" + name) << content; }

  const std::string folder_ = ::testing::TempDir() + "cores_" + std::to_string(getpid());
};

TEST_F(CgroupTest, Version2) {
  EXPECT_EQ(CoresOfCgroup(folder_), 0);
  Write("cpu.max", "250000 100000\n");
  EXPECT_EQ(CoresOfCgroup(folder_), 3);
  Write("cpu.max", "max 100000\n");
  EXPECT_EQ(CoresOfCgroup(folder_), 0);
}

TEST_F(CgroupTest, Version1) {
  Write("cpu/cpu.cfs_quota_us", "400000\n");
  EXPECT_EQ(CoresOfCgroup(folder_), 0);  // Half of it.
  Write("cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(CoresOfCgroup(folder_), 4);
  Write("cpu/cpu.cfs_quota_us", "-1\n");
  EXPECT_EQ(CoresOfCgroup(folder_), 0);
}

TEST(CoresTest, ThereIsAtLeastOne) { EXPECT_GE(AvailableCores(), 1); }

}  // namespace
}  // namespace longembed
