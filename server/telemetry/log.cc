#include "server/telemetry/log.h"

#include <unistd.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/telemetry/log_writer.h"

namespace longembed {
namespace {

std::atomic<LogLevel> the_level = LogLevel::kInfo;
std::atomic<LogFormat> the_format = LogFormat::kJson;

const char* LevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "debug";
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "";
}

std::string JsonLine(const std::string& time, LogLevel level, std::string_view event,
                     std::initializer_list<LogField> fields) {
  nlohmann::ordered_json line{{"time", time}, {"level", LevelName(level)}, {"event", event}};
  for (const auto& [key, value] : fields) std::visit([&line, key = key](const auto& v) { line[key] = v; }, value);
  return line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

// The same as text. Strings have quotes only if they contain a space or a character that JSON escapes.
std::string TextLine(const std::string& time, LogLevel level, std::string_view event,
                     std::initializer_list<LogField> fields) {
  std::string line = absl::StrCat(time, "  ", LevelName(level), "  ", std::string(event));
  for (const auto& [key, value] : fields) {
    nlohmann::json json;
    std::visit([&json](const auto& v) { json = v; }, value);
    const std::string quoted = json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    const bool plain = json.is_string() && !quoted.empty() && quoted.find_first_of(" \\") == std::string::npos;
    absl::StrAppend(&line, "  ", key, "=", plain ? quoted.substr(1, quoted.size() - 2) : quoted);
  }
  return line + "\n";
}

std::string Line(LogLevel level, std::string_view event, std::initializer_list<LogField> fields) {
  const std::string time = absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone());
  return the_format == LogFormat::kJson ? JsonLine(time, level, event, fields) : TextLine(time, level, event, fields);
}

// Returns the writer, which is never destroyed, because a stalled reader may block its thread forever.
LogWriter& TheWriter() {
  constexpr size_t kCapacity = 1 << 20;
  static LogWriter& writer = *new LogWriter(STDERR_FILENO, kCapacity, [](int64_t count) {
    return Line(LogLevel::kWarning, "log lines dropped: the reader of standard error stalled", {{"lines", count}});
  });
  // Flushes at exit, because the last lines contain the reason for it.
  [[maybe_unused]] static const int registered = std::atexit([] { FlushLog(absl::Seconds(1)); });
  return writer;
}

}  // namespace

bool LogEnabled(LogLevel level) { return level >= the_level.load(std::memory_order_relaxed); }
void SetLogLevel(LogLevel level) { the_level = level; }
void SetLogFormat(LogFormat format) { the_format = format; }
LogFormat CurrentLogFormat() { return the_format; }

void Log(LogLevel level, std::string_view event, std::initializer_list<LogField> fields) {
  if (!LogEnabled(level)) return;
  TheWriter().Add(Line(level, event, fields));
}

void LogFatal(std::string_view event, std::string_view why) {
  if (the_format == LogFormat::kJson) return Log(LogLevel::kError, event, {{"why", std::string(why)}});
  TheWriter().Add(absl::StrCat("longembed-server: ", std::string(why), "\n"));
}

bool FlushLog(absl::Duration timeout) { return TheWriter().Flush(timeout); }

int64_t LogLinesDropped() { return TheWriter().dropped(); }

bool LogSampler::Take(int64_t& suppressed, SteadyTime now) {
  constexpr auto kPause = std::chrono::seconds(1);
  const MutexLock lock(mutex_);
  if (now < next_) {
    ++suppressed_;
    return false;
  }
  suppressed = std::exchange(suppressed_, 0);
  next_ = now + kPause;
  return true;
}

}  // namespace longembed
