// Threads that help each other. A loop's caller always works on it itself; threads that have nothing of their own to do
// lend themselves with Help and take iterations too, for as long as they like. So a batch uses the cores that nobody
// else needs at that moment, and gives one back between two iterations.
//
//   Team team;
//   Team::Leader leader(team);                              // On a thread that leads.
//   leader.ParallelFor(count, [&](int i) { rows[i] *= 2; });
//   team.Help([&] { return work_waits.load(); });           // On a thread that is idle.
#ifndef LONGEMBED_MODEL_ENCODER_TEAM_H_
#define LONGEMBED_MODEL_ENCODER_TEAM_H_

#include <array>
#include <atomic>
#include <exception>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace longembed {

// Multiple threads can call the methods of one Team without external synchronization.
class Team {
 public:
  // While one is alive its thread is leading: helpers wait for its next loop instead of leaving. At most kMaxLeaders at
  // a time; a leader beyond that works alone.
  class Leader {
   public:
    explicit Leader(Team& team);
    ~Leader();
    Leader(const Leader&) = delete;
    Leader& operator=(const Leader&) = delete;

    // Calls body(i) once for each i in [0, count), on this thread and on helpers; returns when all have returned. What
    // they wrote is visible to the caller then. When one throws, the rest is not begun, and this throws the same.
    void ParallelFor(int count, absl::FunctionRef<void(int)> body);

    // How many threads may take part, this one included: a hint for how finely to divide.
    int threads() const { return 1 + team_.helpers_.load(std::memory_order_relaxed); }

   private:
    friend class Team;
    Team& team_;
    int slot_ = -1;
  };

  // Takes iterations of leaders' loops until `leave` says true (asked between iterations, from this thread) or nobody
  // is leading. Between loops it spins for a moment, then sleeps a little.
  void Help(absl::FunctionRef<bool()> leave);

  bool has_leaders() const { return leaders_.load(std::memory_order_acquire) > 0; }

 private:
  static constexpr int kMaxLeaders = 64;

  struct Loop {
    Loop(int count, absl::FunctionRef<void(int)> body) : count(count), body(body) {}
    const int count;
    const absl::FunctionRef<void(int)> body;
    std::atomic<int> next = 0;
    std::atomic<bool> failed = false;
    std::exception_ptr error;  // Written by whoever set `failed`.

    // Runs one iteration; false when none is left.
    bool RunOne();
  };

  // A leader's place. A helper enters before it looks for the loop; so once the loop is taken away and nobody is
  // inside, nobody can reach it any more.
  struct alignas(64) Slot {
    std::atomic<bool> taken = false;
    std::atomic<Loop*> loop = nullptr;
    std::atomic<int> inside = 0;
  };

  // Whether it found an iteration to run. `place` is the slot to begin with, and becomes the one that it worked for.
  bool HelpOnce(int& place, absl::FunctionRef<bool()> leave);

  std::array<Slot, kMaxLeaders> slots_;
  std::atomic<int> leaders_ = 0;
  std::atomic<int> helpers_ = 0;
};

// Threads that do nothing but help, for programs without workers of their own.
class HelperThreads {
 public:
  // `team` must outlive them.
  HelperThreads(Team& team, int threads);
  ~HelperThreads();

 private:
  std::atomic<bool> stopping_ = false;
  std::vector<std::jthread> threads_;
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_TEAM_H_
