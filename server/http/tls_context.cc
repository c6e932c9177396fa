#include "server/http/tls_context.h"

#include <openssl/ssl.h>

#include <boost/asio/buffer.hpp>
#include <string_view>

namespace longembed {
namespace {

namespace ssl = boost::asio::ssl;

// Chooses HTTP/1.1. A client that offers protocols must offer it.
int ChooseProtocol(SSL*, const unsigned char** chosen, unsigned char* chosen_length, const unsigned char* offered,
                   unsigned int offered_length, void*) {
  static constexpr std::string_view kHttp = "\x08http/1.1";
  const int found = SSL_select_next_proto(const_cast<unsigned char**>(chosen), chosen_length,
                                          reinterpret_cast<const unsigned char*>(kHttp.data()), kHttp.size(), offered,
                                          offered_length);
  return found == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

std::shared_ptr<ssl::context> Make(const Certificates& certificates) {
  const auto buffer = [](const std::string& pem) { return boost::asio::buffer(pem.data(), pem.size()); };
  auto context = std::make_shared<ssl::context>(ssl::context::tls_server);
  SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_2_VERSION);
  SSL_CTX_set_alpn_select_cb(context->native_handle(), &ChooseProtocol, nullptr);
  context->use_certificate_chain(buffer(certificates.certificate));
  context->use_private_key(buffer(certificates.key), ssl::context::pem);
  if (!certificates.client_ca.empty()) {
    context->add_certificate_authority(buffer(certificates.client_ca));
    context->set_verify_mode(ssl::verify_peer | ssl::verify_fail_if_no_peer_cert);
    // Without this id, OpenSSL fails the handshake of a client that resumes a session with a certificate.
    static constexpr unsigned char kSessions[] = "longembed-http";
    SSL_CTX_set_session_id_context(context->native_handle(), kSessions, sizeof(kSessions) - 1);
    // As with gRPC, an authority need not be a root.
    X509_STORE_set_flags(SSL_CTX_get_cert_store(context->native_handle()), X509_V_FLAG_PARTIAL_CHAIN);
  }
  return context;
}

}  // namespace

std::shared_ptr<ssl::context> TlsContext::Current() {
  const std::shared_ptr<const Certificates> certificates = certificates_.Current();
  if (context_ == nullptr || certificates->generation != generation_) {
    context_ = Make(*certificates);
    generation_ = certificates->generation;
  }
  return context_;
}

}  // namespace longembed
