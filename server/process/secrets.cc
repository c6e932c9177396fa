#include "server/process/secrets.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/telemetry/log.h"

namespace longembed {
namespace {

void LogReload(const char* what, const absl::Status& status) {
  if (status.ok()) return Log(LogLevel::kInfo, "reloaded", {{"what", what}});
  Log(LogLevel::kError, "reload failed; the previous version stays in use",
      {{"what", what}, {"why", std::string(status.message())}});
}

absl::StatusOr<std::unique_ptr<CertificateStore>> OpenCertificates(const TlsConfig& tls, Metrics& metrics) {
  absl::StatusOr<std::unique_ptr<CertificateStore>> store =
      CertificateStore::Open({.certificate = tls.certificate, .key = tls.key, .client_ca = tls.client_ca},
                             [&metrics](const Certificates& in_use, const absl::Status& status) {
                               metrics.CountTlsReload(status.ok());
                               metrics.SetCertificateExpiry(in_use.not_after);
                               LogReload("certificates", status);
                             });
  if (!store.ok()) return absl::InvalidArgumentError(absl::StrCat("tls: ", store.status().message()));
  const std::shared_ptr<const Certificates> first = (*store)->Current();
  metrics.SetCertificateExpiry(first->not_after);
  if (first->not_before > absl::Now()) {
    Log(LogLevel::kWarning, "the certificate is not valid yet",
        {{"path", tls.certificate}, {"valid_from", absl::FormatTime(first->not_before, absl::UTCTimeZone())}});
  }
  return store;
}

absl::StatusOr<std::unique_ptr<ApiKeyStore>> OpenApiKeys(const std::string& path, Metrics& metrics) {
  absl::StatusOr<std::unique_ptr<ApiKeyStore>> store = ApiKeyStore::Open(path, [&metrics](const absl::Status& status) {
    metrics.CountApiKeyReload(status.ok());
    LogReload("api_keys", status);
  });
  if (!store.ok()) return absl::InvalidArgumentError(absl::StrCat("api_keys: ", store.status().message()));
  return store;
}

}  // namespace

void Secrets::Open(const ServerConfig& config, Metrics& metrics, Problems& problems) {
  if (config.tls.enabled()) {
    absl::StatusOr<std::unique_ptr<CertificateStore>> store = OpenCertificates(config.tls, metrics);
    problems.Add(store.status());
    if (store.ok()) certificates = *std::move(store);
  }
  if (!config.api_keys.empty()) {
    absl::StatusOr<std::unique_ptr<ApiKeyStore>> store = OpenApiKeys(config.api_keys, metrics);
    problems.Add(store.status());
    if (store.ok()) api_keys = *std::move(store);
  }
}

void Secrets::ReloadIfChanged() {
  if (certificates != nullptr) certificates->Current();
  if (api_keys != nullptr) api_keys->ReloadIfChanged();
}

void Secrets::Reload() {
  if (certificates != nullptr) certificates->Reload();
  if (api_keys != nullptr) api_keys->Reload();
}

}  // namespace longembed
