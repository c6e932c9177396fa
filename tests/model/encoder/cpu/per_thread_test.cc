#include "model/encoder/cpu/per_thread.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <latch>
#include <memory>
#include <set>
#include <thread>
#include <vector>

namespace longembed::cpu {
namespace {

// Counts its live objects.
struct Counted {
  explicit Counted(std::atomic<int>& alive) : alive(alive) { ++alive; }
  ~Counted() { --alive; }
  std::atomic<int>& alive;
};

TEST(ThreadNumberTest, LivingThreadsHaveTheLowestNumbersAndNoTwoTheSame) {
  const int own = ThreadNumber();
  for (int round = 0; round < 3; ++round) {
    std::vector<int> numbers(4, -1);
    {
      std::latch all(4);
      std::vector<std::jthread> threads;
      for (int& number : numbers) {
        threads.emplace_back([&number, &all] {
          number = ThreadNumber();
          all.arrive_and_wait();
        });
      }
    }
    numbers.push_back(own);
    EXPECT_EQ(std::set(numbers.begin(), numbers.end()).size(), 5u);
    EXPECT_THAT(numbers, ::testing::Each(::testing::Lt(5)));
  }
  EXPECT_EQ(ThreadNumber(), own);
}

TEST(PerThreadTest, AThreadFindsItsOwnObjectAgain) {
  std::atomic<int> alive = 0;
  {
    PerThread<Counted> objects;
    const auto make = [&alive] { return std::make_unique<Counted>(alive); };
    const Counted* mine = &*objects.Take(make);
    const Counted* others = nullptr;
    std::latch taken(1), looked(1);
    std::jthread other([&] {
      const auto lease = objects.Take(make);
      others = &*lease;
      taken.count_down();
      looked.wait();
    });
    taken.wait();
    EXPECT_NE(others, mine);
    EXPECT_EQ(&*objects.Take(make), mine);
    EXPECT_EQ(alive, 2);
    looked.count_down();
    other.join();
    EXPECT_EQ(alive, 2);
  }
  EXPECT_EQ(alive, 0);
}

TEST(PerThreadTest, TwoLeasesOfOneThreadAreTwoObjects) {
  std::atomic<int> alive = 0;
  PerThread<Counted> objects;
  const auto make = [&alive] { return std::make_unique<Counted>(alive); };
  {
    const auto first = objects.Take(make), second = objects.Take(make);
    EXPECT_NE(&*first, &*second);
    EXPECT_EQ(alive, 2);
  }
  EXPECT_EQ(alive, 1);
}

}  // namespace
}  // namespace longembed::cpu
