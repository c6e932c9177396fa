// The files that say who may call and who we are.
#ifndef LONGEMBED_SERVER_PROCESS_SECRETS_H_
#define LONGEMBED_SERVER_PROCESS_SECRETS_H_

#include <memory>

#include "absl/status/status.h"
#include "server/config/config.h"
#include "server/security/api_keys.h"
#include "server/security/certificates.h"
#include "server/telemetry/metrics.h"

namespace longembed {

struct Secrets {
  std::unique_ptr<CertificateStore> certificates;  // Null: plaintext.
  std::unique_ptr<ApiKeyStore> api_keys;           // Null: no key is asked for.

  // `metrics` must outlive them. Errors: INVALID_ARGUMENT, naming the key of the configuration.
  absl::Status Open(const ServerConfig& config, Metrics& metrics);

  // Takes up what has changed, also while nobody calls.
  void Look();
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_PROCESS_SECRETS_H_
