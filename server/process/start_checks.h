// Finds problems that can be known before a model is loaded.
#ifndef LONGEMBED_SERVER_PROCESS_START_CHECKS_H_
#define LONGEMBED_SERVER_PROCESS_START_CHECKS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "model/manifest/manifest.h"
#include "server/config/config.h"
#include "system/host_limits.h"

namespace longembed {

// Collects problems, so that one start reports all of them. Not thread-safe.
class Problems {
 public:
  // Adds the problems of a status: one for each line of its message.
  void Add(const absl::Status& status);
  // Adds the problem of a key of the config: the message, prefixed by the key.
  void Add(const std::string& key, const absl::Status& status);
  const std::vector<std::string>& all() const { return all_; }

 private:
  std::vector<std::string> all_;
};

// Return the numbers of threads that run models on the CPU, and that tokenize, on a machine with `cores` cores.
int ComputeThreads(const ServerConfig& config, int cores);
int TokenizationThreads(const ServerConfig& config, int cores);

// Adds a problem for each limit of the machine, the container or the user that the config exceeds.
void CheckHostLimits(const ServerConfig& config, const HostLimits& limits, Problems& problems);

// Checks that a model has the prompt that http.openai_prompt names. Errors: INVALID_ARGUMENT.
absl::Status CheckOpenAiPrompt(const HttpConfig& http, const std::vector<const ModelManifest*>& models);

// Logs the names of the environment variables that set keys of the config, but not their values.
void LogOverrides(const ServerConfig& config);

// Logs the limits by name.
void LogHostLimits(const HostLimits& limits);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_PROCESS_START_CHECKS_H_
