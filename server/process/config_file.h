// The config file while the server runs: the section `log` follows it, everything else needs a restart.
#ifndef LONGEMBED_SERVER_PROCESS_CONFIG_FILE_H_
#define LONGEMBED_SERVER_PROCESS_CONFIG_FILE_H_

#include <map>
#include <string>

#include "server/config/config.h"
#include "system/watched_files.h"

namespace longembed {

// Not thread-safe.
class ConfigFile {
 public:
  // `running` is what the server started with, from the file at `path`.
  ConfigFile(const std::string& path, const ServerConfig& running);

  // Checks at most once a second; the first time it reads the file, which may have changed while models loaded.
  void ReloadIfChanged() {
    if (file_.Changed()) Reload();
  }

  // Reads the file. Puts its section `log` into force, and logs by name which keys that was, and which others differ
  // from what runs. A file that cannot be used changes nothing.
  void Reload();

 private:
  const std::string path_;
  std::map<std::string, std::string> running_;  // ConfigValues of what is in force.
  WatchedFiles file_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_PROCESS_CONFIG_FILE_H_
