// Follows the config file while the server runs: changes of the section `log` are applied; all others need a restart.
#ifndef LONGEMBED_SERVER_PROCESS_CONFIG_FILE_H_
#define LONGEMBED_SERVER_PROCESS_CONFIG_FILE_H_

#include <map>
#include <string>

#include "server/config/config.h"
#include "system/watched_files.h"

namespace longembed {

// Reloads the config file. Not thread-safe.
class ConfigFile {
 public:
  // `running` is the configuration that the server started with, read from `path`.
  ConfigFile(const std::string& path, const ServerConfig& running);

  // Reloads the file if it has changed. Checks at most once a second. The first check reads the file, because it may
  // have changed while models were loading.
  void ReloadIfChanged() {
    if (file_.Changed()) Read(/*requested=*/false);
  }

  // Reads the file and applies its section `log`. Logs the names of the keys that were applied, and of other keys that
  // differ from what runs. A file that cannot be used changes nothing.
  void Reload() { Read(/*requested=*/true); }

 private:
  // `requested`: the reload was requested, so a file that still cannot be opened is reported again.
  void Read(bool requested);

  const std::string path_;
  std::map<std::string, std::string> running_;  // ConfigValues of what the server runs with.
  WatchedFiles file_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_PROCESS_CONFIG_FILE_H_
