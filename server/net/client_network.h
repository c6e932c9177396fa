// Identifies a client that has neither a key nor a certificate by its address. An IPv6 client is identified by its
// network of 64 bits, because one host may use all addresses of it. Pure functions that any thread can call.
#ifndef LONGEMBED_SERVER_NET_CLIENT_NETWORK_H_
#define LONGEMBED_SERVER_NET_CLIENT_NETWORK_H_

#include <sys/socket.h>

#include <string>
#include <string_view>

namespace longembed {

// Returns "ipv4:10.0.0.1" or "ipv6:2001:db8::/64". An IPv4 address that is mapped to IPv6 is the same client. Returns
// an empty string for other address families.
std::string ClientOf(const sockaddr_storage& peer);

// Does the same for a peer in gRPC's form: "ipv4:10.0.0.1:4711", "ipv6:%5B2001:db8::1%25eth0%5D:4711". Any other peer
// is returned without its port.
std::string ClientOf(std::string_view peer);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_NET_CLIENT_NETWORK_H_
