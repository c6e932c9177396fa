#include "system/cpu_time.h"

#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <future>
#include <thread>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace longembed {
namespace {

TEST(WantsCpuTest, DistinguishesRunningFromWaitingThreads) {
  std::atomic<pid_t> runs = 0, waits = 0;
  std::atomic<bool> over = false;
  std::promise<void> end;
  std::jthread running([&] {
    runs = static_cast<pid_t>(syscall(SYS_gettid));
    while (!over) {
    }
  });
  std::jthread waiting([&] {
    waits = static_cast<pid_t>(syscall(SYS_gettid));
    end.get_future().wait();
  });
  while (runs == 0 || waits == 0) std::this_thread::yield();
  EXPECT_TRUE(WantsCpu(runs));
  bool seen_waiting = false;
  for (int i = 0; i < 10000 && !seen_waiting; ++i) {
    seen_waiting = !WantsCpu(waits);
    absl::SleepFor(absl::Milliseconds(1));
  }
  EXPECT_TRUE(seen_waiting);
  EXPECT_FALSE(WantsCpu(1 << 30));  // There is no such thread.
  over = true;
  end.set_value();
}

TEST(ProcessCpuTimeTest, GrowsByTheTimeOfAllThreads) {
  const absl::Duration before = ProcessCpuTime();
  std::atomic<bool> over = false;
  {
    std::jthread other([&] {
      while (!over) {
      }
    });
    while (ProcessCpuTime() - before < absl::Milliseconds(20)) absl::SleepFor(absl::Milliseconds(1));
    over = true;
  }
  EXPECT_GE(ProcessCpuTime() - before, absl::Milliseconds(20));
}

}  // namespace
}  // namespace longembed
