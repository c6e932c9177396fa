// The client at the other end of a connection.
#ifndef LONGEMBED_SERVER_HTTP_PEER_H_
#define LONGEMBED_SERVER_HTTP_PEER_H_

#include <openssl/ssl.h>

#include <optional>
#include <string>

namespace longembed {

struct Peer {
  std::string address;      // In gRPC's form: "ipv4:10.0.0.1:4711", "ipv6:[::1]:4711".
  std::string certificate;  // The name in its certificate; empty if it has none.
  bool is_ipv6 = false;
};

// Returns the peer of a socket; nullopt if the socket is no longer connected over TCP.
std::optional<Peer> PeerOf(int descriptor);

// Returns the client's name after the handshake, as gRPC would: the first of the certificate's alternative names, else
// its common name. Returns an empty name if there is no certificate.
std::string CertificateNameOf(SSL* connection);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_HTTP_PEER_H_
