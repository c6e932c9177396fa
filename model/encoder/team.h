// A work-sharing parallel loop: idle threads join a caller's loop and leave between iterations.
//
// The caller always works on its own loop. A batch thus uses cores that are idle at the moment, and releases a core
// between two iterations.
//
//   Team team;
//   Team::Leader leader(team);                              // On the thread that calls ParallelFor.
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

// A team of leaders, which run loops, and helpers. Multiple threads can call the methods of one Team without external
// synchronization.
class Team {
 public:
  // Creates a team in which up to `max_leaders` leaders at a time share their loops. Further leaders work without
  // helpers.
  explicit Team(int max_leaders);
  // Creates a team with std::thread::hardware_concurrency() leaders.
  Team();

  // Marks the calling thread as a leader during its lifetime. Between a leader's loops, helpers wait for the next one
  // instead of returning.
  class Leader {
   public:
    explicit Leader(Team& team);
    ~Leader();
    Leader(const Leader&) = delete;
    Leader& operator=(const Leader&) = delete;

    // Calls body(i) once for each i in [0, count), on this thread and on at most count - 1 helpers. Returns when all
    // calls have returned; their writes are then visible to the caller. If a call throws, no further calls begin, and
    // ParallelFor rethrows the exception.
    void ParallelFor(int count, absl::FunctionRef<void(int)> body);

    // Returns the number of threads that may take part, this one included, as a hint for how finely to divide a loop.
    int threads() const { return 1 + team_.helpers_.load(std::memory_order_relaxed); }

   private:
    friend class Team;
    Team& team_;
    int slot_ = -1;
  };

  // Runs iterations of leaders' loops until `leave` returns true or there is no leader. `leave` is called on this
  // thread between iterations. Without a loop to help with, Help spins briefly, then sleeps for some microseconds at a
  // time.
  void Help(absl::FunctionRef<bool()> leave);

  bool has_leaders() const { return leaders_.load(std::memory_order_acquire) > 0; }

 private:
  // Alignment of variables that threads write often. Two cache lines, because x86 fetches lines in pairs.
  static constexpr size_t kLine = 128;

  struct Loop {
    Loop(int count, absl::FunctionRef<void(int)> body) : count(count), body(body) {}
    const int count;
    const absl::FunctionRef<void(int)> body;
    std::atomic<bool> failed = false;
    std::exception_ptr error;  // Written by the thread that set `failed`.
    alignas(kLine) std::atomic<int> next = 0;

    // Runs one iteration. Returns false if none is left.
    bool RunOne();
  };

  // A place where helpers find the loop of a leader. A helper takes one of the openings, increments `inside`, and only
  // then reads `loop`. Once `loop` is null and `inside` is 0, no helper can access the loop.
  struct alignas(kLine) Slot {
    std::atomic<bool> taken = false;
    std::atomic<Loop*> loop = nullptr;
    // Number of helpers that may still join the loop. The only member that idle threads poll.
    std::atomic<int> openings = 0;
    alignas(kLine) std::atomic<int> inside = 0;

    bool TakeOpening();
    // Runs iterations of the loop. Returns whether it ran any.
    bool Help(absl::FunctionRef<bool()> leave);
  };

  // Searches the slots for a loop, beginning with slot `first`, and helps with it. Returns whether it ran an iteration;
  // `first` is then the slot that it helped.
  bool HelpOnce(size_t& first, absl::FunctionRef<bool()> leave);

  std::vector<Slot> slots_;
  std::atomic<int> leaders_ = 0;
  std::atomic<int> helpers_ = 0;
};

// Threads that only help, for programs without worker threads of their own.
class HelperThreads {
 public:
  // Starts the threads. `team` must outlive this object. Throws std::system_error if the system refuses one of them.
  HelperThreads(Team& team, int threads);
  ~HelperThreads();

 private:
  std::atomic<bool> stopping_ = false;
  std::vector<std::jthread> threads_;
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_TEAM_H_
