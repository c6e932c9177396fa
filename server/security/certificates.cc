#include "server/security/certificates.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "system/return_if_error.h"

namespace longembed {
namespace {

constexpr absl::Duration kCertificatesCheckInterval = absl::Seconds(1);

using X509Ptr = std::unique_ptr<X509, decltype(&X509_free)>;

std::unique_ptr<BIO, decltype(&BIO_free)> AsBio(const std::string& pem) {
  return {BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())), &BIO_free};
}

// Returns the first certificate of the text; null if there is none or if what follows is invalid, because gRPC would
// then reject every handshake.
X509Ptr ParseCertificates(const std::string& pem) {
  const auto bio = AsBio(pem);
  const auto next = [&bio] { return X509Ptr(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr), &X509_free); };
  ERR_clear_error();
  X509Ptr first = next();
  for (X509Ptr more = next(); more != nullptr;) more = next();
  const bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  return at_end ? std::move(first) : X509Ptr(nullptr, &X509_free);
}

// Checks that OpenSSL takes the certificates for handshakes. By its security level it refuses short keys and weak
// signatures, and with such a certificate every handshake would fail.
absl::Status CheckStrength(const CertificatePaths& paths, const Certificates& loaded) {
  const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(TLS_server_method()), &SSL_CTX_free);
  if (context == nullptr) {
    const char* const reason = ERR_reason_error_string(ERR_peek_last_error());
    return absl::FailedPreconditionError(absl::StrCat(
        "OpenSSL cannot make a TLS context: ", reason == nullptr ? "unknown" : reason, " (see its openssl.cnf)"));
  }
  const auto bio = AsBio(loaded.certificate);
  bool first = true;
  while (const X509Ptr next{PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr), &X509_free}) {
    ERR_clear_error();
    const auto taken =
        first ? SSL_CTX_use_certificate(context.get(), next.get()) : SSL_CTX_add1_chain_cert(context.get(), next.get());
    if (taken != 1) {
      const char* const reason = ERR_reason_error_string(ERR_peek_last_error());
      return absl::InvalidArgumentError(absl::StrCat("OpenSSL does not take the ",
                                                     first ? "certificate" : "intermediate certificates", " in ",
                                                     paths.certificate, ": ", reason == nullptr ? "unknown" : reason));
    }
    first = false;
  }
  return absl::OkStatus();
}

absl::Status CheckPair(const CertificatePaths& paths, const Certificates& loaded, X509& certificate) {
  // A key with a passphrase is rejected; OpenSSL would otherwise ask for the passphrase on the terminal.
  const auto no_passphrase = [](char*, int, int, void*) { return -1; };
  const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key(
      PEM_read_bio_PrivateKey(AsBio(loaded.key).get(), nullptr, no_passphrase, nullptr), &EVP_PKEY_free);
  if (key == nullptr)
    return absl::InvalidArgumentError(absl::StrCat(paths.key, " holds no unencrypted PEM private key"));
  if (X509_check_private_key(&certificate, key.get()) != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("the key in ", paths.key, " does not belong to the certificate in ", paths.certificate));
  }
  return absl::OkStatus();
}

absl::Status ReadValidity(const CertificatePaths& paths, const X509& certificate, Certificates& loaded) {
  std::tm begin{}, end{};
  if (ASN1_TIME_to_tm(X509_get0_notBefore(&certificate), &begin) != 1 ||
      ASN1_TIME_to_tm(X509_get0_notAfter(&certificate), &end) != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("the certificate in ", paths.certificate, " does not say when it is valid"));
  }
  loaded.not_before = absl::FromTM(begin, absl::UTCTimeZone());
  loaded.not_after = absl::FromTM(end, absl::UTCTimeZone());
  return absl::OkStatus();
}

// Clears OpenSSL's error queue, which belongs to the thread: gRPC reads it after every call of its own.
struct ErrorQueueCleaner {
  ~ErrorQueueCleaner() { ERR_clear_error(); }
};

}  // namespace

absl::StatusOr<Certificates> LoadCertificates(const CertificatePaths& paths, absl::Time now) {
  const ErrorQueueCleaner cleaner;
  Certificates loaded;
  for (const auto& [path, content] :
       {std::pair{&paths.certificate, &loaded.certificate}, std::pair{&paths.key, &loaded.key},
        std::pair{&paths.client_ca, &loaded.client_ca}}) {
    if (path->empty()) continue;
    absl::StatusOr<std::string> read = ReadWholeFile(*path);
    if (!read.ok()) return read.status();
    *content = *std::move(read);
  }
  const X509Ptr certificate = ParseCertificates(loaded.certificate);
  if (certificate == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(paths.certificate, " holds no PEM certificate, or a broken one"));
  }
  RETURN_IF_ERROR(CheckPair(paths, loaded, *certificate));
  RETURN_IF_ERROR(CheckStrength(paths, loaded));
  if (!paths.client_ca.empty() && ParseCertificates(loaded.client_ca) == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(paths.client_ca, " holds no PEM certificate, or a broken one"));
  }
  RETURN_IF_ERROR(ReadValidity(paths, *certificate, loaded));
  if (loaded.not_after <= now) {
    return absl::InvalidArgumentError(absl::StrCat("the certificate in ", paths.certificate, " expired on ",
                                                   absl::FormatTime(loaded.not_after, absl::UTCTimeZone())));
  }
  return loaded;
}

CertificateStore::CertificateStore(const CertificatePaths& paths, OnReload on_reload)
    : paths_(paths),
      on_reload_(std::move(on_reload)),
      files_({paths.certificate, paths.key, paths.client_ca}, kCertificatesCheckInterval) {}

absl::StatusOr<std::unique_ptr<CertificateStore>> CertificateStore::Open(const CertificatePaths& paths,
                                                                         OnReload on_reload) {
  std::unique_ptr<CertificateStore> store(new CertificateStore(paths, std::move(on_reload)));
  const MutexLock lock(store->mutex_);
  store->files_.Changed();
  absl::StatusOr<Certificates> loaded = LoadCertificates(paths, absl::Now());
  if (!loaded.ok()) return loaded.status();
  store->current_ = std::make_shared<const Certificates>(*std::move(loaded));
  return store;
}

std::shared_ptr<const Certificates> CertificateStore::Current() {
  const MutexLock lock(mutex_);
  if (files_.Changed() || absl::Now() >= retry_at_) Read();
  return current_;
}

void CertificateStore::Reload() {
  const MutexLock lock(mutex_);
  requested_ = true;
  Read();
}

absl::Status CertificateStore::TooEarly(const Certificates& loaded, absl::Time now) const {
  if (loaded.not_before <= now || current_->not_after <= now) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("the certificate in ", paths_.certificate, " is valid only from ",
                                                    absl::FormatTime(loaded.not_before, absl::UTCTimeZone()),
                                                    " on, and will be used then"));
}

void CertificateStore::Read() {
  const absl::Time now = absl::Now();
  absl::StatusOr<Certificates> loaded = LoadCertificates(paths_, now);
  retry_at_ = absl::InfiniteFuture();
  if (files_.TryAgain(loaded.status())) return;
  absl::Status status = loaded.status();
  const bool report = files_.ShouldReport(status), requested = std::exchange(requested_, false);
  if (loaded.ok()) status = TooEarly(*loaded, now);
  if (status.ok()) {
    loaded->generation = current_->generation + 1;
    current_ = std::make_shared<const Certificates>(*std::move(loaded));
  } else if (loaded.ok()) {
    retry_at_ = std::min(loaded->not_before, current_->not_after);
  }
  if (on_reload_ && (report || requested)) on_reload_(*current_, status);
}

}  // namespace longembed
