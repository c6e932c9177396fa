// A work-sharing parallel loop: idle threads join a caller's loop and leave between iterations.
//
// The caller always works on its loop itself. So a batch uses the cores that nothing else needs at that moment, and
// gives one back between two iterations.
//
//   Team team;
//   Team::Leader leader(team);                              // On a thread that leads.
//   leader.ParallelFor(count, [&](int i) { rows[i] *= 2; });
//   team.Help([&] { return work_waits.load(); });           // On an idle thread.
#ifndef LONGEMBED_MODEL_ENCODER_TEAM_H_
#define LONGEMBED_MODEL_ENCODER_TEAM_H_

#include <atomic>
#include <exception>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace longembed {

// Multiple threads can call the methods of one Team without external synchronization.
class Team {
 public:
  // Shares the loops of up to `max_leaders` leaders at a time; a leader beyond them works alone.
  explicit Team(int max_leaders);
  // As many leaders as the process has cores.
  Team();

  // Marks its thread as leading while it lives: helpers wait for its next loop instead of leaving.
  class Leader {
   public:
    explicit Leader(Team& team);
    ~Leader();
    Leader(const Leader&) = delete;
    Leader& operator=(const Leader&) = delete;

    // Calls body(i) once for each i in [0, count), on this thread and on at most count - 1 helpers; returns when all
    // have returned. Their writes are visible to the caller then. When one throws, the rest is not begun, and this
    // throws the same.
    void ParallelFor(int count, absl::FunctionRef<void(int)> body);

    // Threads that may take part, this one included: a hint for how finely to divide.
    int threads() const { return 1 + team_.helpers_.load(std::memory_order_relaxed); }

   private:
    friend class Team;
    Team& team_;
    int slot_ = -1;
  };

  // Takes iterations of leaders' loops until `leave` returns true (called between iterations, on this thread) or no
  // thread leads. Between loops it spins for a moment, then sleeps for some microseconds at a time.
  void Help(absl::FunctionRef<bool()> leave);

  bool has_leaders() const { return leaders_.load(std::memory_order_acquire) > 0; }

 private:
  // What threads write often has a cache line of its own (two, because x86 fetches lines in pairs).
  static constexpr size_t kLine = 128;

  struct Loop {
    Loop(int count, absl::FunctionRef<void(int)> body) : count(count), body(body) {}
    const int count;
    const absl::FunctionRef<void(int)> body;
    std::atomic<bool> failed = false;
    std::exception_ptr error;  // Written by the thread that set `failed`.
    alignas(kLine) std::atomic<int> next = 0;

    // Runs one iteration; false when none is left.
    bool RunOne();
  };

  // A leader's loop, where helpers find it. A helper takes one of its openings, enters, and only then reads `loop`:
  // once `loop` is null and no helper is inside, none can reach the loop any more.
  struct alignas(kLine) Slot {
    std::atomic<bool> taken = false;
    std::atomic<Loop*> loop = nullptr;
    std::atomic<int> openings = 0;  // Helpers that the loop still has iterations for. Idle threads read this one alone.
    alignas(kLine) std::atomic<int> inside = 0;

    bool TakeOpening();
    // Returns whether it ran an iteration.
    bool Help(absl::FunctionRef<bool()> leave);
  };

  // Returns whether it found an iteration to run. Begins with the slot of number `first`, and sets it to the one that
  // it worked for.
  bool HelpOnce(size_t& first, absl::FunctionRef<bool()> leave);

  std::vector<Slot> slots_;
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
