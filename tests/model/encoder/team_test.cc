#include "model/encoder/team.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <set>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <vector>

namespace longembed {
namespace {

TEST(TeamTest, ALeaderAloneRunsEveryIteration) {
  Team team;
  Team::Leader leader(team);
  EXPECT_EQ(leader.threads(), 1);
  std::vector<int> runs(100, 0);
  leader.ParallelFor(100, [&](int i) { ++runs[i]; });
  EXPECT_THAT(runs, ::testing::Each(1));
  leader.ParallelFor(0, [&](int) { FAIL(); });
}

// Repeats the loop until two threads have run iterations, which means that the helper took part.
TEST(TeamTest, AHelperTakesIterations) {
  Team team;
  Team::Leader leader(team);
  std::atomic<bool> leave = false;
  std::jthread helper([&] { team.Help([&] { return leave.load(); }); });
  std::mutex mutex;
  std::set<std::thread::id> threads;
  while (threads.size() < 2) {
    leader.ParallelFor(8, [&](int) {
      const std::lock_guard lock(mutex);
      threads.insert(std::this_thread::get_id());
    });
  }
  leave = true;
}

TEST(TeamTest, HelpReturnsWhenThereIsNoLeader) {
  Team team;
  team.Help([] { return false; });  // There is no leader, so this returns at once.
  auto leader = std::make_unique<Team::Leader>(team);
  std::jthread helper([&] { team.Help([] { return false; }); });
  leader->ParallelFor(10, [](int) {});
  leader.reset();
  helper.join();
  EXPECT_FALSE(team.has_leaders());
}

TEST(TeamTest, ExceptionsOfIterationsReachTheLeader) {
  Team team;
  Team::Leader leader(team);
  const auto fail = [&] {
    leader.ParallelFor(50, [](int i) {
      if (i == 7) throw std::runtime_error("seven");
    });
  };
  EXPECT_THROW(fail(), std::runtime_error);
  int runs = 0;
  leader.ParallelFor(3, [&](int) { ++runs; });
  EXPECT_EQ(runs, 3);
}

// Lets the process have `bytes` more of address space than now, and lets the stack of each further thread take a
// quarter of that.
void LeaveRoomFor(size_t bytes) {
  rlim_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  const rlim_t most = pages * static_cast<rlim_t>(sysconf(_SC_PAGESIZE)) + bytes;
  const rlimit limit{.rlim_cur = most, .rlim_max = most};
  setrlimit(RLIMIT_AS, &limit);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, bytes / 4);
  pthread_setattr_default_np(&attributes);
}

// The threads that have started must end, or the caller that catches the exception waits for them forever.
TEST(HelperThreadsTest, AThreadThatTheSystemRefusesIsThrown) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers need address space of their own";
#endif
  const auto start = [] {
    alarm(20);
    LeaveRoomFor(size_t{400} << 20);
    Team team;
    try {
      const HelperThreads helpers(team, 64);
    } catch (const std::system_error&) {
      std::_Exit(EXIT_SUCCESS);
    }
    std::_Exit(EXIT_FAILURE);
  };
  EXPECT_EXIT(start(), ::testing::ExitedWithCode(EXIT_SUCCESS), "");
}

// A loop of two iterations has one opening for a helper. One helper repeatedly takes it, and leaves before it runs an
// iteration. The other helper must still find the opening.
TEST(TeamTest, AHelperThatLeavesGivesItsOpeningBack) {
  Team team;
  Team::Leader leader(team);
  std::atomic<bool> over = false;
  const std::jthread leaves([&] {
    while (!over) {
      int asked = 0;
      team.Help([&] { return ++asked > 1; });
    }
  });
  const std::jthread stays([&] {
    while (!over) team.Help([&] { return over.load(); });
  });
  for (int loop = 0; loop < 200; ++loop) {
    std::atomic<int> begun = 0;
    leader.ParallelFor(2, [&](int) {
      ++begun;
      const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(20);
      while (begun < 2 && std::chrono::steady_clock::now() < give_up) std::this_thread::yield();
      EXPECT_EQ(begun, 2) << "in loop " << loop;
    });
    if (HasFailure()) break;
  }
  over = true;
}

TEST(TeamTest, ALeaderWithoutASlotWorksAlone) {
  Team team(1);
  Team::Leader first(team), second(team);
  const HelperThreads helpers(team, 2);
  while (first.threads() < 3) std::this_thread::yield();
  std::set<std::thread::id> threads;
  std::mutex mutex;
  for (int loop = 0; loop < 50; ++loop) {
    second.ParallelFor(20, [&](int) {
      const std::lock_guard lock(mutex);
      threads.insert(std::this_thread::get_id());
    });
  }
  EXPECT_THAT(threads, ::testing::ElementsAre(std::this_thread::get_id()));
}

// Leaders and helpers come and go. Every iteration must run once, and its writes must be visible after the loop.
TEST(TeamStressTest, EveryIterationRunsOnce) {
  constexpr int kLoops = 400, kCount = 37;
  Team team;
  std::atomic<bool> over = false;
  std::vector<std::jthread> helpers;
  for (int h = 0; h < 2; ++h) {
    helpers.emplace_back([&] {
      for (int turn = 0; !over; ++turn) {
        int asked = 0;
        team.Help([&] { return over || ++asked > turn % 50; });
      }
    });
  }
  std::vector<std::jthread> leaders;
  for (int l = 0; l < 2; ++l) {
    leaders.emplace_back([&] {
      for (int i = 0; i < kLoops; ++i) {
        Team::Leader leader(team);
        std::vector<int> runs(kCount, 0);
        leader.ParallelFor(kCount, [&](int j) { ++runs[j]; });
        ASSERT_THAT(runs, ::testing::Each(1));
      }
    });
  }
  leaders.clear();
  over = true;
}

}  // namespace
}  // namespace longembed
