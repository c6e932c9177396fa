// Checks of the config that need no model's weights: for the start, which makes them before it loads models, and for
// --check-config.
#ifndef LONGEMBED_SERVER_PROCESS_CHECK_CONFIG_H_
#define LONGEMBED_SERVER_PROCESS_CHECK_CONFIG_H_

#include <functional>
#include <ostream>
#include <string>

#include "absl/status/status.h"
#include "server/config/config.h"
#include "server/process/start_checks.h"

namespace longembed {

// Checks that the machine has what the config requires for one of its models, such as a device.
using CheckMachine = std::function<absl::Status(const ServerConfig&, const ModelConfig&)>;

// Adds a problem for every model that its manifest shows to be unloadable on this machine, and for every key that
// refers to models and does not match them: profiles, their aliases, prompts and tei. Takes milliseconds, while loading
// may take minutes.
void CheckModels(const ServerConfig& config, const CheckMachine& check_machine, Problems& problems);

// Adds all problems that would keep a server with this config from starting on this machine, as far as they can be
// found without opening ports and loading weights. Checks limits, addresses, certificates, keys, profiles and tei, and
// the manifest, tokenizer and files of each model.
void CheckStart(const ServerConfig& config, const CheckMachine& check_machine, Problems& problems);

// Reads and checks the config. Writes the problems to `err`, one a line, or to `out` that there are none. Returns the
// exit status: 0, kExitFailure, or kExitUsage if the config itself is wrong.
int CheckConfig(const std::string& path, const CheckMachine& check_machine, std::ostream& out, std::ostream& err);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_PROCESS_CHECK_CONFIG_H_
