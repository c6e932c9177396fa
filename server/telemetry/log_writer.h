// Writes lines to a file descriptor without ever holding up the threads that log.
#ifndef LONGEMBED_SERVER_TELEMETRY_LOG_WRITER_H_
#define LONGEMBED_SERVER_TELEMETRY_LOG_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "system/mutex.h"

namespace longembed {

// A bounded buffer of whole lines and the one thread that writes them. Where the reader stalls the buffer fills, and
// further lines are dropped and counted. Multiple threads can call its methods without external synchronization.
class LogWriter {
 public:
  // Makes the line that reports `count` dropped lines, its newline included.
  using DroppedLine = std::function<std::string(int64_t count)>;

  // Holds at most `capacity` bytes of lines that wait, and as many that are being written. The descriptor stays the
  // caller's.
  LogWriter(int descriptor, size_t capacity, DroppedLine dropped_line);

  // REQUIRES: the descriptor takes or refuses what is written to it; while it blocks, this waits.
  ~LogWriter();

  // Queues a line, which ends with "\n", or drops it. Never waits for the reader. After dropped lines, a line
  // that says how many they were follows the lines that are written next.
  void Add(const std::string& line);

  // Waits until every line added before has been written or dropped, at most for `timeout`. Returns whether it was.
  bool Flush(absl::Duration timeout);

  // Lines that found no room, or that the descriptor refused, since the start.
  int64_t dropped() const;

 private:
  void Run();
  // Returns how many lines the descriptor refused.
  int64_t WriteLines(std::string_view lines);
  bool WritePiece(std::string_view text);
  void CountDropped(int64_t lines) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int descriptor_;
  const size_t capacity_;
  const DroppedLine dropped_line_;

  mutable Mutex mutex_;
  ConditionVariable added_, written_;
  std::string waiting_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t dropped_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t unreported_ ABSL_GUARDED_BY(mutex_) = 0;  // Dropped, and not reported by a line.

  bool within_line_ = false;  // Of the thread: a refusal left a part of a line behind.
  std::thread thread_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_TELEMETRY_LOG_WRITER_H_
