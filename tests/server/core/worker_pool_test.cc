#include "server/core/worker_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>

namespace longembed {
namespace {

using ::testing::ElementsAre;

constexpr auto kLong = std::chrono::seconds(20);  // For what has to happen; longer than any machine is slow.

// Occupies threads until it is opened.
class Gate {
 public:
  void Pass() { opened_.wait(); }
  void Open() { promise_.set_value(); }

 private:
  std::promise<void> promise_;
  const std::shared_future<void> opened_ = promise_.get_future().share();
};

bool Happens(const std::future<void>& event) { return event.wait_for(kLong) == std::future_status::ready; }

// Blocks every thread of the pool until the gate opens; returns once they are blocked.
void Block(WorkerPool& pool, Gate& gate) {
  for (int i = 0; i < pool.threads(); ++i) {
    auto begun = std::make_shared<std::promise<void>>();
    const std::future<void> event = begun->get_future();
    pool.Run([&gate, begun] {
      begun->set_value();
      gate.Pass();
    });
    ASSERT_TRUE(Happens(event));
  }
}

TEST(WorkerPoolTest, RunsInOrderOfDueThenOfArrival) {
  std::vector<int> order;
  Gate gate;
  {
    WorkerPool pool(1);
    Block(pool, gate);
    const absl::Time now = absl::Now();
    for (const auto& [task, seconds] : {std::pair{1, 5}, {2, 1}, {3, 5}, {4, -3}, {5, 1}}) {
      pool.Run([&order, task = task] { order.push_back(task); }, {.due = now + absl::Seconds(seconds)});
    }
    gate.Open();
  }
  EXPECT_THAT(order, ElementsAre(4, 2, 5, 1, 3));
}

// Due is an order, not a time to wait for.
TEST(WorkerPoolTest, WhatIsDueLaterRunsNowWhenNothingElseWaits) {
  std::promise<void> ran;
  WorkerPool pool(1);
  pool.Run([&ran] { ran.set_value(); }, {.due = absl::Now() + absl::Hours(1)});
  EXPECT_TRUE(Happens(ran.get_future()));
}

TEST(WorkerPoolTest, LongTasksRunInTheirTurn) {
  std::vector<int> order;
  Gate gate;
  {
    WorkerPool pool(1);
    Block(pool, gate);
    const absl::Time now = absl::Now();
    pool.Run([&order] { order.push_back(2); }, {.due = now + absl::Seconds(2)});
    pool.Run([&order] { order.push_back(1); }, {.due = now + absl::Seconds(1), .is_long = true});
    pool.Run([&order] { order.push_back(3); }, {.due = now + absl::Seconds(3), .is_long = true});
    gate.Open();
  }
  EXPECT_THAT(order, ElementsAre(1, 2, 3));
}

TEST(WorkerPoolTest, LongTasksTakeHalfOfTheThreads) {
  constexpr int kThreads = 4, kTasks = 6;
  Gate gate;
  std::atomic<int> running = 0, most = 0, done = 0;
  std::promise<void> first, second, both;
  {
    WorkerPool pool(kThreads);
    for (int i = 0; i < kTasks; ++i) {
      pool.Run(
          [&] {
            const int now = ++running;
            for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) continue;
            gate.Pass();
            --running;
            ++done;
          },
          {.due = absl::Now() - absl::Hours(1), .is_long = true});
    }
    // Two short ones run at the same time beside them: each waits for the other.
    pool.Run([&] {
      first.set_value();
      second.get_future().wait();
      both.set_value();
    });
    pool.Run([&] {
      first.get_future().wait();
      second.set_value();
    });
    EXPECT_TRUE(Happens(both.get_future()));
    EXPECT_LE(running, kThreads / 2);
    gate.Open();
  }
  EXPECT_EQ(done, kTasks);
  EXPECT_LE(most, kThreads / 2);
}

TEST(WorkerPoolTest, DelayedTasksRunAfterTheirDelay) {
  std::promise<absl::Time> ran;
  WorkerPool pool(2);
  const absl::Time begin = absl::Now();
  pool.RunAfter(absl::Milliseconds(50), [&ran] { ran.set_value(absl::Now()); });
  EXPECT_GE(ran.get_future().get() - begin, absl::Milliseconds(49));
}

// The thread that watched the time takes a task that does not end: another one has to watch now.
TEST(WorkerPoolTest, ADelayedTaskFindsAThreadThatIsFree) {
  for (int round = 0; round < 10; ++round) {
    std::promise<void> ran, idle;
    Gate gate;
    WorkerPool pool(3);
    pool.RunAfter(absl::ZeroDuration(), [&idle] { idle.set_value(); });
    ASSERT_TRUE(Happens(idle.get_future()));
    absl::SleepFor(absl::Milliseconds(2));
    pool.RunAfter(absl::Milliseconds(30), [&ran] { ran.set_value(); });
    absl::SleepFor(absl::Milliseconds(2));
    pool.Run([&gate] { gate.Pass(); });
    const bool happened = ran.get_future().wait_for(std::chrono::seconds(5)) == std::future_status::ready;
    gate.Open();
    ASSERT_TRUE(happened) << "round " << round;
  }
}

// Several become due at once, and each waits for the other.
TEST(WorkerPoolTest, DelayedTasksUseEveryThread) {
  Gate gate;
  std::promise<void> second_ran;
  std::future<void> event = second_ran.get_future();
  bool happened = false;
  {
    WorkerPool pool(2);
    pool.RunAfter(absl::Milliseconds(20),
                  [&] { happened = event.wait_for(std::chrono::seconds(5)) == std::future_status::ready; });
    pool.RunAfter(absl::Milliseconds(20), [&second_ran] { second_ran.set_value(); });
  }
  EXPECT_TRUE(happened);
}

TEST(WorkerPoolTest, TheDestructorRunsWhatIsLeft) {
  std::atomic<int> ran = 0;
  Gate gate;
  std::jthread opener;
  {
    WorkerPool pool(2);
    Block(pool, gate);
    for (int i = 0; i < 10; ++i) {
      pool.Run([&ran] { ++ran; }, {.is_long = i % 2 == 0});
      pool.RunAfter(absl::Hours(1), [&ran] { ++ran; });
    }
    // What they leave behind runs, too.
    pool.Run([&ran, &pool] { pool.RunAfter(absl::Hours(1), [&ran] { ++ran; }); });
    opener = std::jthread([&gate] {
      absl::SleepFor(absl::Milliseconds(20));
      gate.Open();
    });
  }
  EXPECT_EQ(ran, 21);
}

// Threads that may not take a long task wait while the pool ends, and have to hear of its end.
TEST(WorkerPoolTest, EndsWhileLongTasksWait) {
  for (int round = 0; round < 50; ++round) {
    std::atomic<int> ran = 0;
    {
      WorkerPool pool(5);
      for (int i = 0; i < 7; ++i) {
        pool.Run(
            [&ran] {
              absl::SleepFor(absl::Microseconds(300));
              ++ran;
            },
            {.is_long = true});
      }
    }
    ASSERT_EQ(ran, 7);
  }
}

TEST(WorkerPoolTest, OrderFollowsTheLengthOfTheText) {
  const absl::Time now = absl::Now();
  EXPECT_FALSE(WorkerPool::OrderOf(100, now).is_long);
  EXPECT_TRUE(WorkerPool::OrderOf(1 << 20, now).is_long);
  const absl::Time later = now + absl::Hours(1);
  EXPECT_LT(WorkerPool::OrderOf(100, later).due, WorkerPool::OrderOf(1000, later).due);
  EXPECT_EQ(WorkerPool::OrderOf(0, later).due, later);
  // A start in the past is now: nobody gains by having waited elsewhere.
  EXPECT_GE(WorkerPool::OrderOf(0, now - absl::Hours(1)).due, now);
  EXPECT_GE(WorkerPool::OrderOf(0, absl::InfinitePast()).due, now);
}

TEST(WorkerPoolTest, IsThreadSafe) {
  std::atomic<int> ran = 0;
  {
    WorkerPool pool(3);
    std::vector<std::jthread> threads;
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([&pool, &ran] {
        for (int i = 0; i < 500; ++i) {
          if (i % 3 == 0) pool.RunAfter(absl::Microseconds(i), [&ran] { ++ran; });
          if (i % 3 != 0) pool.Run([&ran] { ++ran; }, {.is_long = i % 2 == 0});
        }
      });
    }
  }
  EXPECT_EQ(ran, 1500);
}

}  // namespace
}  // namespace longembed
