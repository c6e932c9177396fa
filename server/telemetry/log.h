// Structured logs: one event a line on standard error, as JSON or as text. Texts, prompts, vectors and keys are never
// logged.
//
//   Log(LogLevel::kInfo, "model ready", {{"model", name}, {"seconds", 1.5}});
//
// writes {"time":"2026-11-25T12:00:00.123Z","level":"info","event":"model ready","model":"e5","seconds":1.5}
#ifndef LONGEMBED_SERVER_TELEMETRY_LOG_H_
#define LONGEMBED_SERVER_TELEMETRY_LOG_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "server/config/log_config.h"
#include "system/mutex.h"

namespace longembed {

using LogValue = std::variant<int64_t, double, std::string>;
using LogField = std::pair<const char*, LogValue>;

// Logs an event. Any thread may call the functions of this file. A line is queued, and a separate thread writes it as a
// whole. If a reader stalls, lines are dropped and counted, but callers never wait.
void Log(LogLevel level, std::string_view event, std::initializer_list<LogField> fields = {});

// Logs an error that ends the process; its field "why" is the problem. In text format the line is "longembed-server:
// WHY".
void LogFatal(std::string_view event, std::string_view why);

// Waits until all lines logged before have been written, for at most `timeout`. Returns whether they have been. A
// process that ends by exit() or by a return from main flushes by itself, for a second at most.
bool FlushLog(absl::Duration timeout);

// Returns the number of lines dropped since the start, because standard error was full for too long or closed.
int64_t LogLinesDropped();

// Returns whether a line of this level would be written, for callers whose fields are costly to compute.
bool LogEnabled(LogLevel level);

void SetLogLevel(LogLevel level);
void SetLogFormat(LogFormat format);
LogFormat CurrentLogFormat();

// Lets the first event of a kind in every second through and counts the others, so that a client that causes ten
// thousand errors a second does not fill a disk.
class LogSampler {
 public:
  using SteadyTime = std::chrono::steady_clock::time_point;

  // Returns whether to log. If so, `suppressed` is the number of events since the last one that was logged.
  bool Take(int64_t& suppressed, SteadyTime now = std::chrono::steady_clock::now());

 private:
  Mutex mutex_;
  SteadyTime next_ ABSL_GUARDED_BY(mutex_) = SteadyTime::min();
  int64_t suppressed_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_TELEMETRY_LOG_H_
