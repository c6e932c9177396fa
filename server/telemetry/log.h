// Structured logs: one event a line on standard error, as JSON or as text. Texts, prompts, vectors and
// keys are never logged.
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

// All of this may be called by any thread. A line is queued, and written whole by a thread of its own: a reader that
// stalls costs lines, which are counted, and never a caller's time.
void Log(LogLevel level, std::string_view event, std::initializer_list<LogField> fields = {});

// The same for what ends the process: an error whose field "why" is the problem. As text, "longembed-server: WHY".
void LogFatal(std::string_view event, std::string_view why);

// Waits until what was logged before has been written, at most for `timeout`. Returns whether it was. A process that
// ends by exit() or a return from main does so itself, for a second at most.
bool FlushLog(absl::Duration timeout);

// Lines that were lost since the start, because standard error was full for too long or is gone.
int64_t LogLinesDropped();

// Whether a line of this level would be written: for callers whose fields cost something.
bool LogEnabled(LogLevel level);

void SetLogLevel(LogLevel level);
void SetLogFormat(LogFormat format);
LogFormat CurrentLogFormat();

// Lets through the first of a kind of events in every second, and counts the others, so that a client that errs ten
// thousand times a second does not fill a disk.
class LogSampler {
 public:
  using SteadyTime = std::chrono::steady_clock::time_point;

  // Returns whether to log; `suppressed` is then how many were not since the last that was.
  bool Take(int64_t& suppressed, SteadyTime now = std::chrono::steady_clock::now());

 private:
  Mutex mutex_;
  SteadyTime next_ ABSL_GUARDED_BY(mutex_) = SteadyTime::min();
  int64_t suppressed_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_TELEMETRY_LOG_H_
