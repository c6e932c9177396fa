// The server's certificate, its key, and the authorities of its clients, from files that may be replaced while it runs.
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
  std::string certificate;  // PEM, the server's own first, then what leads to its authority.
  std::string key;          // PEM, not encrypted.
  std::string client_ca;    // PEM; empty: clients need no certificate.
};

struct Certificates {
  std::string certificate;
  std::string key;
  std::string client_ca;
  absl::Time not_before;    // When the server's own certificate begins to be valid.
  absl::Time not_after;     // And when it expires.
  uint64_t generation = 0;  // Another number for every set that was loaded.
};

// Reads and checks: that each file is what it should be, that the key belongs to the certificate, that the certificate
// has not expired; it may have yet to become valid. Errors name the file.
absl::StatusOr<Certificates> LoadCertificates(const CertificatePaths& paths, absl::Time now);

// Multiple threads can call Current without external synchronization.
class CertificateStore {
 public:
  // Called at every reload with the set in use from then on, and OK or the reason why it is still the old one.
  using OnReload = std::function<void(const Certificates& in_use, const absl::Status&)>;

  static absl::StatusOr<std::unique_ptr<CertificateStore>> Open(const CertificatePaths& paths, OnReload on_reload);

  // The set in use. Looks once a second at most whether the files have changed; a set that is not whole, or broken, is
  // looked at again a second later, and then refused: files are rarely replaced in one step. One whose certificate is
  // not valid yet is refused until it is, or until the one in use is no longer; the first set is taken all the same.
  std::shared_ptr<const Certificates> Current();

  // Reads the files whether they have changed or not.
  void Reload();

 private:
  CertificateStore(const CertificatePaths& paths, OnReload on_reload);
  void Read(bool second_try) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status TooEarly(const Certificates& loaded, absl::Time now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const CertificatePaths paths_;
  const OnReload on_reload_;

  Mutex mutex_;
  WatchedFiles files_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const Certificates> current_ ABSL_GUARDED_BY(mutex_);
  WatchedFiles::SteadyTime second_try_at_ ABSL_GUARDED_BY(mutex_) = WatchedFiles::SteadyTime::max();
  absl::Time take_up_at_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();  // By the clock that validity goes by.
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_SECURITY_CERTIFICATES_H_
