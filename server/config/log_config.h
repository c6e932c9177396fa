// Level and format of the log.
#ifndef LONGEMBED_SERVER_CONFIG_LOG_CONFIG_H_
#define LONGEMBED_SERVER_CONFIG_LOG_CONFIG_H_

namespace longembed {

enum class LogLevel { kDebug, kInfo, kWarning, kError };
enum class LogFormat { kJson, kText };

struct LogConfig {
  LogLevel level = LogLevel::kInfo;  // kDebug: a line for every request.
  LogFormat format = LogFormat::kJson;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_CONFIG_LOG_CONFIG_H_
