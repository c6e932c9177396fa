// TLS of the HTTP port, with the current certificates.
#ifndef LONGEMBED_SERVER_HTTP_TLS_CONTEXT_H_
#define LONGEMBED_SERVER_HTTP_TLS_CONTEXT_H_

#include <boost/asio/ssl/context.hpp>
#include <cstdint>
#include <memory>

#include "server/security/certificates.h"

namespace longembed {

// Recreates the TLS context when the certificates change. Not thread-safe.
class TlsContext {
 public:
  // `certificates` must outlive this object.
  explicit TlsContext(CertificateStore& certificates) : certificates_(certificates) {}

  // Returns the context for the next handshake. As with gRPC, clients must present a certificate if authorities for
  // them are configured.
  std::shared_ptr<boost::asio::ssl::context> Current();

 private:
  CertificateStore& certificates_;
  uint64_t generation_ = 0;
  std::shared_ptr<boost::asio::ssl::context> context_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_HTTP_TLS_CONTEXT_H_
