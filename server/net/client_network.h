// Identifies a client that has neither a key nor a certificate: by its address; in IPv6 by its network of 64 bits,
// because one host has all addresses of it. Pure functions: any thread.
#ifndef LONGEMBED_SERVER_NET_CLIENT_NETWORK_H_
#define LONGEMBED_SERVER_NET_CLIENT_NETWORK_H_

#include <sys/socket.h>

#include <string>
#include <string_view>

namespace longembed {

// "ipv4:10.0.0.1" or "ipv6:2001:db8::/64"; IPv4 is the same client however it comes. Empty for other families.
std::string ClientOf(const sockaddr_storage& peer);

// The same of a peer as gRPC writes it: "ipv4:10.0.0.1:4711", "ipv6:%5B2001:db8::1%25eth0%5D:4711". What is neither is
// returned as it is, but for a port.
std::string ClientOf(std::string_view peer);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_NET_CLIENT_NETWORK_H_
