// The peer of a connection.
#ifndef LONGEMBED_SERVER_HTTP_PEER_H_
#define LONGEMBED_SERVER_HTTP_PEER_H_

#include <openssl/ssl.h>

#include <optional>
#include <string>

namespace longembed {

struct Peer {
  std::string address;      // As gRPC writes it: "ipv4:10.0.0.1:4711", "ipv6:[::1]:4711".
  std::string certificate;  // The name in its certificate; empty without one.
  bool is_ipv6 = false;
};

// Nullopt: the socket is no longer connected over TCP.
std::optional<Peer> PeerOf(int descriptor);

// Returns the name that gRPC would give the client, after the handshake: the first of the certificate's alternative
// names, else its common name. Empty without a certificate.
std::string CertificateNameOf(SSL* connection);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_HTTP_PEER_H_
