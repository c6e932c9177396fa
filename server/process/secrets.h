// The files with secrets: certificates and API keys.
#ifndef LONGEMBED_SERVER_PROCESS_SECRETS_H_
#define LONGEMBED_SERVER_PROCESS_SECRETS_H_

#include <memory>

#include "server/config/config.h"
#include "server/process/start_checks.h"
#include "server/security/api_keys.h"
#include "server/security/certificates.h"
#include "server/telemetry/metrics.h"

namespace longembed {

struct Secrets {
  std::unique_ptr<CertificateStore> certificates;  // Null: plaintext.
  std::unique_ptr<ApiKeyStore> api_keys;           // Null: no key is required.

  // Opens the files of the config. Adds a problem, which names the key of the config, for each that cannot be used.
  // `metrics` must outlive them.
  void Open(const ServerConfig& config, Metrics& metrics, Problems& problems);

  // Reloads files that have changed, even if no call arrives.
  void ReloadIfChanged();

  // Reads every file again, changed or not.
  void Reload();
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_PROCESS_SECRETS_H_
