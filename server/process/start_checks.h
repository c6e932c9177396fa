// Finds the problems that can be known before a model is loaded.
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
  // A message of several lines is as many problems.
  void Add(const absl::Status& status);
  const std::vector<std::string>& all() const { return all_; }

 private:
  std::vector<std::string> all_;
};

// Numbers of threads that run the models on the CPU and that tokenize, given `cores`.
int ComputeThreads(const ServerConfig& config, int cores);
int TokenizationThreads(const ServerConfig& config, int cores);

// Adds a problem for each limit of the machine, the container or the user that the config does not fit in.
void CheckHostLimits(const ServerConfig& config, const HostLimits& limits, Problems& problems);

// Whether a model has the prompt of http.openai_prompt. Errors: INVALID_ARGUMENT.
absl::Status CheckOpenAiPrompt(const HttpConfig& http, const std::vector<const ModelManifest*>& models);

// Logs by name the environment variables that set keys of the config, without their values.
void LogOverrides(const ServerConfig& config);

// Logs the limits by name.
void LogHostLimits(const HostLimits& limits);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_PROCESS_START_CHECKS_H_
