// Writes lines to a file descriptor without ever blocking the threads that log.
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

// A bounded buffer of whole lines, and a thread that writes them. If the reader stalls, the buffer fills up, and
// further lines are dropped and counted. Multiple threads can call its methods without external synchronization.
class LogWriter {
 public:
  // Returns the line that reports `count` dropped lines, including its newline.
  using DroppedReport = std::function<std::string(int64_t count)>;

  // Holds at most `capacity` bytes of waiting lines, and as many that are being written. The descriptor stays the
  // caller's.
  LogWriter(int descriptor, size_t capacity, DroppedReport dropped_report);

  // Blocks while a write to the descriptor blocks. REQUIRES: the descriptor accepts or refuses writes.
  ~LogWriter();

  // Queues a line, which must end with "\n", or drops it. Never waits for the reader. After lines were dropped, a line
  // with their number follows the next lines that are written.
  void Add(const std::string& line);

  // Waits until every line added before has been written or dropped, for at most `timeout`. Returns whether that is the
  // case.
  bool Flush(absl::Duration timeout);

  // Returns the number of lines since the start that found no room or that the descriptor refused.
  int64_t dropped() const;

 private:
  void Run();
  // Returns the number of lines that the descriptor refused.
  int64_t WriteLines(std::string_view lines);
  bool WritePiece(std::string_view text);
  void CountDropped(int64_t lines) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int descriptor_;
  const size_t capacity_;
  const DroppedReport dropped_report_;

  mutable Mutex mutex_;
  ConditionVariable added_, written_;
  std::string waiting_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t dropped_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t unreported_ ABSL_GUARDED_BY(mutex_) = 0;  // Dropped, but not reported by a line yet.

  bool within_line_ = false;  // Used on the thread only. A refused write left part of a line.
  std::thread thread_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_TELEMETRY_LOG_WRITER_H_
