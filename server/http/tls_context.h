// TLS of the HTTP port, with the certificates that are in use at the moment.
#ifndef LONGEMBED_SERVER_HTTP_TLS_CONTEXT_H_
#define LONGEMBED_SERVER_HTTP_TLS_CONTEXT_H_

#include <boost/asio/ssl/context.hpp>
#include <cstdint>
#include <memory>

#include "server/security/certificates.h"

namespace longembed {

// Not thread-safe.
class TlsContext {
 public:
  // `certificates` must outlive it.
  explicit TlsContext(CertificateStore& certificates) : certificates_(certificates) {}

  // For the next handshake. Clients must show a certificate where there are authorities for them, as with gRPC.
  std::shared_ptr<boost::asio::ssl::context> Current();

 private:
  CertificateStore& certificates_;
  uint64_t generation_ = 0;
  std::shared_ptr<boost::asio::ssl::context> context_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_HTTP_TLS_CONTEXT_H_
