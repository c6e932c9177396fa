// Keys of the config that environment variables set. The name of a variable is LONGEMBED__ and the key in capitals,
// with "__" for each dot: LONGEMBED__LISTEN is listen, LONGEMBED__LIMITS__MAX_QUEUE_WAIT is limits.max_queue_wait. A
// value is written as in the file, and an empty value is the empty text. Models and profiles can be set only in the
// file.
#ifndef LONGEMBED_SERVER_CONFIG_OVERRIDES_H_
#define LONGEMBED_SERVER_CONFIG_OVERRIDES_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/config/config.h"

namespace longembed {

struct ConfigOverride {
  std::string variable;
  std::string key;  // "limits.max_queue_wait"
  std::string value;
};

using Environment = std::vector<std::string>;  // Entries "NAME=VALUE".

// Returns the environment of this process.
Environment ProcessEnvironment();

// Finds the overrides, ordered by key. Errors (INVALID_ARGUMENT), one a line: a variable with the prefix LONGEMBED__
// that names no key (the error suggests the nearest one), and a variable that would name a key if it had the double
// underscores (LONGEMBED_LISTEN), which would have no effect. Other variables, such as LONGEMBED_SERVER of the client
// and those that Kubernetes derives from a service's name, are ignored.
absl::StatusOr<std::vector<ConfigOverride>> FindOverrides(const Environment& environment);

// Sets the keys. Errors (INVALID_ARGUMENT), one a line: "VARIABLE: KEY what is wrong".
absl::Status ApplyOverrides(const std::vector<ConfigOverride>& overrides, ServerConfig& config);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_CONFIG_OVERRIDES_H_
