#include "server/core/worker_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "model/errors/errors.h"
#include "server/errors/errors.h"
#include "tests/testing/fake_clock.h"

namespace longembed {
namespace {

using ::testing::ElementsAre;

const RealClock kClock;
// Timeout for events that must happen. It is longer than the delays of any slow machine.
constexpr auto kLong = std::chrono::seconds(20);

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

// Blocks every thread of the pool until the gate opens. Returns when all of them are blocked.
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

constexpr int64_t kLongText = 1 << 20, kShortText = 1 << 10;

// A slow task on one thread leaves the others. Only when no thread is left does the pool answer nobody.
TEST(WorkerPoolTest, HangsWhenEveryThreadIsLate) {
  FakeClock clock;
  Gate first, second;
  WorkerPool pool(2, clock);
  const auto block = [&pool](Gate& gate) {
    std::promise<void> begun;
    pool.Run([&] {
      begun.set_value();
      gate.Pass();
    });
    ASSERT_TRUE(Happens(begun.get_future()));
  };
  block(first);
  clock.Advance(absl::Hours(1));
  EXPECT_EQ(pool.hanging(), absl::ZeroDuration());
  block(second);
  EXPECT_EQ(pool.hanging(), absl::ZeroDuration());  // This task has time yet.
  clock.Advance(absl::Minutes(1));
  EXPECT_GT(pool.hanging(), absl::Seconds(30));
  EXPECT_LT(pool.hanging(), absl::Seconds(60));
  first.Open();
  while (pool.hanging() > absl::ZeroDuration()) std::this_thread::yield();
  second.Open();
}

// However much one client has waiting, the next turn is another client's.
TEST(WorkerPoolTest, ClientsAlternate) {
  std::vector<std::string> order;
  Gate gate;
  {
    WorkerPool pool(1, kClock);
    Block(pool, gate);
    for (int i = 0; i < 4; ++i) pool.Run([&order] { order.push_back("much"); }, {.client = "a", .bytes = kShortText});
    pool.Run([&order] { order.push_back("little"); }, {.client = "b", .bytes = kShortText});
    gate.Open();
  }
  EXPECT_THAT(order, ElementsAre("much", "little", "much", "much", "much"));
}

// Shares are counted in bytes of text, not in tasks.
TEST(WorkerPoolTest, AClientsShareIsCountedInBytes) {
  std::string order;
  Gate gate;
  {
    WorkerPool pool(1, kClock);
    Block(pool, gate);
    for (int i = 0; i < 2; ++i) pool.Run([&order] { order += 'L'; }, {.client = "a", .bytes = 8 * kShortText});
    for (int i = 0; i < 16; ++i) pool.Run([&order] { order += 's'; }, {.client = "b", .bytes = kShortText});
    gate.Open();
  }
  EXPECT_EQ(order.substr(0, 9), "Lssssssss");
  EXPECT_EQ(std::ranges::count(order.substr(9), 'L'), 1);
}

// It frees what its call holds. Other clients keep their turns, and the client pays for it.
TEST(WorkerPoolTest, ATaskThatEndsACallGoesBeforeItsClientsOthers) {
  std::string order;
  Gate gate;
  {
    WorkerPool pool(1, kClock);
    Block(pool, gate);
    for (int i = 0; i < 3; ++i) pool.Run([&order] { order += 't'; }, {.client = "a", .bytes = kShortText});
    pool.RunFirst([&order] { order += 'E'; }, {.client = "a", .bytes = 100 * kShortText});
    pool.Run([&order] { order += 'b'; }, {.client = "b", .bytes = kShortText});
    pool.Run([&order] { order += 'a'; }, {.client = "a", .bytes = kShortText});
    pool.Run([&order] { order += 'b'; }, {.client = "b", .bytes = kShortText});
    gate.Open();
  }
  EXPECT_EQ(order, "tEbtbta");
}

TEST(WorkerPoolTest, TheTimeOfATaskThatEndsACallIsNotThatOfText) {
  FakeClock clock;
  WorkerPool pool(0, clock);
  const absl::Duration before = pool.ExpectedTime({.client = "a", .bytes = kLongText});
  pool.RunFirst([&clock] { clock.Advance(absl::Seconds(100)); }, {.client = "a", .bytes = kLongText});
  EXPECT_GT(pool.ExpectedTime({.client = "a", .bytes = kLongText}), before);  // It waits for that task.
  EXPECT_TRUE(pool.Step());
  EXPECT_EQ(pool.ExpectedTime({.client = "a", .bytes = kLongText}), before);
}

// Runs one long task per entry of `clients`, and checks that a short task still finds a thread. Returns the most long
// tasks that ran at a time.
int MostAtATime(int threads, const std::vector<std::string>& clients) {
  Gate gate;
  std::atomic<int> running = 0, most = 0;
  {
    WorkerPool pool(threads, kClock);
    for (const std::string& client : clients) {
      pool.Run(
          [&] {
            const int now = ++running;
            for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) continue;
            gate.Pass();
            --running;
          },
          {.client = client, .bytes = kLongText});
    }
    std::promise<void> ran;
    pool.Run([&ran] { ran.set_value(); }, {.client = clients.front(), .bytes = kShortText});
    EXPECT_TRUE(Happens(ran.get_future()));
    gate.Open();
  }
  return most;
}

TEST(WorkerPoolTest, LongTasksLeaveAThreadToShortOnes) { EXPECT_LE(MostAtATime(4, {"a", "b", "c", "d", "e", "f"}), 3); }

TEST(WorkerPoolTest, OneClientsLongTasksLeaveHalfToThoseOfOthers) {
  EXPECT_LE(MostAtATime(5, {"a", "a", "a", "a", "a"}), 2);
}

// The expected wait is reported, and a task is refused if that wait is too long.
TEST(WorkerPoolTest, TheExpectedTimeGrowsWithTheQueue) {
  Gate gate;
  WorkerPool pool(1, kClock, absl::Milliseconds(500));
  Block(pool, gate);
  const TaskSize mine{.client = "a", .bytes = kLongText}, other{.client = "b", .bytes = kLongText};
  const absl::Duration alone = pool.ExpectedTime(mine);
  EXPECT_EQ(pool.longest_wait(), absl::ZeroDuration());
  EXPECT_GT(alone, absl::ZeroDuration());
  int accepted = 0;
  absl::Status status;
  for (; accepted < 100 && status.ok(); ++accepted) status = pool.TryRun([] {}, mine);
  EXPECT_EQ(ErrorReason(status), "QUEUE_WAIT");
  EXPECT_TRUE(RetryDelay(status).has_value());
  EXPECT_GT(accepted, 2);
  EXPECT_GT(pool.ExpectedTime(mine), alone + absl::Milliseconds(400));
  EXPECT_GT(pool.longest_wait(), absl::Milliseconds(400));
  // Another client waits only for its own turn.
  EXPECT_LT(pool.ExpectedTime(other), 2.5 * alone);
  EXPECT_TRUE(pool.TryRun([] {}, other).ok());
  const TaskSize urgent{.client = "c", .bytes = kLongText, .time_left = absl::Milliseconds(1)};
  EXPECT_EQ(ErrorReason(pool.TryRun([] {}, urgent)), "DEADLINE_TOO_SHORT");
  gate.Open();
}

// The error must not say "in about 0" if nothing waits before the task.
TEST(WorkerPoolTest, AnErrorForALongTaskNamesItsTime) {
  WorkerPool pool(1, kClock);
  const TaskSize urgent{.client = "a", .bytes = kLongText, .time_left = absl::Milliseconds(1)};
  const absl::Status status = pool.TryRun([] {}, urgent);
  EXPECT_EQ(ErrorReason(status), "DEADLINE_TOO_SHORT");
  EXPECT_GT(RetryDelay(status).value(), absl::ZeroDuration());
  EXPECT_EQ(status.message().find("in about 0,"), absl::string_view::npos) << status;
  const TaskSize brief{.client = "a", .bytes = kShortText, .time_left = absl::Nanoseconds(1)};
  EXPECT_EQ(RetryDelay(pool.TryRun([] {}, brief)), absl::Milliseconds(50));  // Not "try again in 0".
}

TEST(WorkerPoolTest, ADeadlineThatHasPassedIsNotOverload) {
  WorkerPool pool(1, kClock);
  for (const absl::Duration left : {absl::ZeroDuration(), -absl::Hours(1)}) {
    const absl::Status status = pool.TryRun([] {}, {.client = "a", .bytes = kShortText, .time_left = left});
    EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  }
}

// A short task takes a hundred times as long as its few bytes. This must not count as time for the bytes of a long one.
TEST(WorkerPoolTest, ShortTasksDoNotMakeLongOnesLookSlow) {
  FakeClock clock;
  WorkerPool pool(0, clock);
  const TaskSize text{.client = "a", .bytes = kLongText}, word{.client = "b", .bytes = 5};
  const absl::Duration before = pool.ExpectedTime(text);
  const auto run = [&] { pool.Run([&clock] { clock.Advance(absl::Microseconds(100)); }, word); };
  for (int i = 0; i < 20'000; ++i) {
    run();
    ASSERT_TRUE(pool.Step());
  }
  EXPECT_LT(pool.ExpectedTime(text), before + absl::Milliseconds(1));
  // The wait for short tasks is that for their overhead.
  for (int i = 0; i < 100; ++i) run();
  EXPECT_GT(pool.ExpectedTime(word), absl::Milliseconds(9));
  EXPECT_LT(pool.ExpectedTime(word), absl::Milliseconds(11));
}

TEST(WorkerPoolTest, DelayedTasksRunAfterTheirDelay) {
  std::promise<absl::Time> ran;
  WorkerPool pool(2, kClock);
  const absl::Time begin = absl::Now();
  pool.RunAfter(absl::Milliseconds(50), [&ran] { ran.set_value(absl::Now()); });
  EXPECT_GE(ran.get_future().get() - begin, absl::Milliseconds(49));
}

// The thread that waited for the delay starts a task that does not end. Another thread must now wait for the delay.
TEST(WorkerPoolTest, ADelayedTaskFindsAThreadThatIsFree) {
  for (int round = 0; round < 10; ++round) {
    std::promise<void> ran, idle;
    Gate gate;
    WorkerPool pool(3, kClock);
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

// Several tasks become due at the same time, and one waits for the other.
TEST(WorkerPoolTest, DelayedTasksUseEveryThread) {
  Gate gate;
  std::promise<void> second_ran;
  std::future<void> event = second_ran.get_future();
  bool happened = false;
  {
    WorkerPool pool(2, kClock);
    pool.RunAfter(absl::Milliseconds(20),
                  [&] { happened = event.wait_for(std::chrono::seconds(5)) == std::future_status::ready; });
    pool.RunAfter(absl::Milliseconds(20), [&second_ran] { second_ran.set_value(); });
  }
  EXPECT_TRUE(happened);
}

TEST(WorkerPoolTest, TheDestructorRunsTheRemainingTasks) {
  std::atomic<int> ran = 0;
  Gate gate;
  std::jthread opener;
  {
    WorkerPool pool(2, kClock);
    Block(pool, gate);
    for (int i = 0; i < 10; ++i) {
      pool.Run([&ran] { ++ran; }, {.bytes = i % 2 == 0 ? kLongText : kShortText});
      pool.RunAfter(absl::Hours(1), [&ran] { ++ran; });
    }
    // Tasks that are added at this point must run, too.
    pool.Run([&ran, &pool] { pool.RunAfter(absl::Hours(1), [&ran] { ++ran; }); });
    opener = std::jthread([&gate] {
      absl::SleepFor(absl::Milliseconds(20));
      gate.Open();
    });
  }
  EXPECT_EQ(ran, 21);
}

// Threads that must not take a long task are waiting when the pool ends. They must be woken up.
TEST(WorkerPoolTest, EndsWhileLongTasksWait) {
  for (int round = 0; round < 50; ++round) {
    std::atomic<int> ran = 0;
    {
      WorkerPool pool(5, kClock);
      for (int i = 0; i < 7; ++i) {
        pool.Run(
            [&ran] {
              absl::SleepFor(absl::Microseconds(300));
              ++ran;
            },
            {.bytes = kLongText});
      }
    }
    ASSERT_EQ(ran, 7);
  }
}

TEST(WorkerPoolTest, IsThreadSafe) {
  std::atomic<int> ran = 0;
  {
    WorkerPool pool(3, kClock);
    std::vector<std::jthread> threads;
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([&pool, &ran] {
        for (int i = 0; i < 500; ++i) {
          if (i % 3 == 0) pool.RunAfter(absl::Microseconds(i), [&ran] { ++ran; });
          if (i % 3 != 0) pool.Run([&ran] { ++ran; }, {.bytes = i % 2 == 0 ? kLongText : kShortText});
        }
      });
    }
  }
  EXPECT_EQ(ran, 1500);
}

}  // namespace
}  // namespace longembed
