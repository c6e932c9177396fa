// Keys of the config that environment variables set. One scheme over all keys: LONGEMBED__ and the key, in capitals,
// with "__" for each dot. LONGEMBED__LISTEN is listen, LONGEMBED__LIMITS__MAX_QUEUE_WAIT is limits.max_queue_wait. A
// value is written as in the file, and an empty one is the empty text. Models and profiles are set in the file alone.
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

using Environment = std::vector<std::string>;  // "NAME=VALUE" each.

// The environment of the process.
Environment ProcessEnvironment();

// Finds the overrides, ordered by key. Errors (INVALID_ARGUMENT), a line each: a variable that starts as an override
// and names no key, with the nearest one; a variable that names a key but for the double underscores
// (LONGEMBED_LISTEN), which would have no effect. Other variables, such as LONGEMBED_SERVER of the client and those
// that Kubernetes makes of a service's name, are left alone.
absl::StatusOr<std::vector<ConfigOverride>> FindOverrides(const Environment& environment);

// Sets the keys. Errors (INVALID_ARGUMENT), a line each: "VARIABLE: KEY what is wrong".
absl::Status ApplyOverrides(const std::vector<ConfigOverride>& overrides, ServerConfig& config);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_CONFIG_OVERRIDES_H_
