#include "server/process/config_file.h"

#include <algorithm>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/time/time.h"
#include "server/telemetry/log.h"

namespace longembed {
namespace {

using Values = std::map<std::string, std::string>;

// Returns the keys whose values differ, or that only one of the two has.
std::vector<std::string> DifferentKeys(const Values& a, const Values& b) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : a) {
    if (!b.contains(key) || b.at(key) != value) keys.push_back(key);
  }
  for (const auto& [key, value] : b) {
    if (!a.contains(key)) keys.push_back(key);
  }
  std::sort(keys.begin(), keys.end());
  return keys;
}

bool IsReloaded(const std::string& key) { return absl::StartsWith(key, "log."); }

}  // namespace

ConfigFile::ConfigFile(const std::string& path, const ServerConfig& running)
    : path_(path), running_(ConfigValues(running)), file_({path}, absl::Seconds(1)) {}

void ConfigFile::Read(bool requested) {
  const absl::StatusOr<ServerConfig> config = ReadConfig(path_);
  const bool report = file_.ShouldReport(config.status());
  if (!config.ok()) {
    if (!report && !requested) return;
    return Log(LogLevel::kWarning, "config reload failed; the old config stays in use",
               {{"why", absl::StrReplaceAll(config.status().message(), {{"\n", "; "}})}});
  }
  Values values = ConfigValues(*config);
  std::vector<std::string> reloaded, waiting;
  for (const std::string& key : DifferentKeys(running_, values)) (IsReloaded(key) ? reloaded : waiting).push_back(key);
  if (reloaded.empty() && waiting.empty()) return;
  const auto say = [&] {
    Log(LogLevel::kInfo, "config reloaded",
        {{"in_force", absl::StrJoin(reloaded, ", ")}, {"after_a_restart", absl::StrJoin(waiting, ", ")}});
    return LogEnabled(LogLevel::kInfo);
  };
  // Either the old or the new log level may suppress the line, so it is logged before the change, or else after it.
  const bool said = say();
  SetLogLevel(config->log.level);
  SetLogFormat(config->log.format);
  if (!said) say();
  for (const std::string& key : reloaded) running_[key] = values[key];
}

}  // namespace longembed
