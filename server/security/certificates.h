// The server's certificate, its key, and its clients' authorities, from files that may be replaced while it runs.
#ifndef LONGEMBED_SERVER_SECURITY_CERTIFICATES_H_
#define LONGEMBED_SERVER_SECURITY_CERTIFICATES_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "system/mutex.h"
#include "system/watched_files.h"

namespace longembed {

struct CertificatePaths {
  std::string certificate;  // PEM: the server's own certificate, then those between it and its authority.
  std::string key;          // PEM, not encrypted.
  std::string client_ca;    // PEM; empty: clients need no certificate.
};

struct Certificates {
  std::string certificate;
  std::string key;
  std::string client_ca;
  absl::Time not_before;    // Start of the validity of the server's own certificate.
  absl::Time not_after;     // End of its validity.
  uint64_t generation = 0;  // Differs between all sets that were loaded.
};

// Reads the files and checks that each has the right content, that the key belongs to the certificate, that both are
// strong enough for OpenSSL, and that the certificate has not expired. Its validity may begin later. Errors name the
// file.
absl::StatusOr<Certificates> LoadCertificates(const CertificatePaths& paths, absl::Time now);

// The current certificates. Multiple threads can call its methods without external synchronization.
class CertificateStore {
 public:
  // Called at every reload with the set that is in use from then on, and OK or the reason why it is still the old one.
  using OnReload = std::function<void(const Certificates& in_use, const absl::Status&)>;

  static absl::StatusOr<std::unique_ptr<CertificateStore>> Open(const CertificatePaths& paths, OnReload on_reload);

  // Returns the set in use. Checks once a second at most whether the files have changed. Files are rarely replaced in
  // one step, so a set that is incomplete or invalid is read again a second later, and only then rejected. Files that
  // cannot be opened are tried again after that, too. A set whose certificate is not valid yet is rejected until it is
  // valid, or until the one in use has expired. The set that Open reads is used even if its certificate is not valid
  // yet.
  std::shared_ptr<const Certificates> Current();

  // Reads the files, changed or not.
  void Reload();

 private:
  CertificateStore(const CertificatePaths& paths, OnReload on_reload);
  void Read() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status TooEarly(const Certificates& loaded, absl::Time now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const CertificatePaths paths_;
  const OnReload on_reload_;

  Mutex mutex_;
  WatchedFiles files_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const Certificates> current_ ABSL_GUARDED_BY(mutex_);
  absl::Time retry_at_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();  // By the wall clock.
  bool requested_ ABSL_GUARDED_BY(mutex_) = false;  // Reload was called, and its outcome is not reported yet.
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_SECURITY_CERTIFICATES_H_
