#include "server/net/client_network.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>

namespace longembed {
namespace {

sockaddr_storage Peer(int family, const char* address) {
  sockaddr_storage peer{};
  peer.ss_family = static_cast<sa_family_t>(family);
  void* const to = family == AF_INET ? static_cast<void*>(&reinterpret_cast<sockaddr_in&>(peer).sin_addr)
                                     : static_cast<void*>(&reinterpret_cast<sockaddr_in6&>(peer).sin6_addr);
  EXPECT_EQ(inet_pton(family, address, to), 1) << address;
  return peer;
}

// Limits on connections and limits on calls must identify the same client.
TEST(ClientNetworkTest, ASocketsPeerAndGrpcsAreTheSameClient) {
  const auto expect = [](int family, const char* address, std::string_view grpc, const char* client) {
    EXPECT_EQ(ClientOf(Peer(family, address)), client);
    EXPECT_EQ(ClientOf(grpc), client);
  };
  expect(AF_INET, "10.0.0.1", "ipv4:10.0.0.1:4711", "ipv4:10.0.0.1");
  expect(AF_INET6, "::ffff:10.0.0.1", "ipv6:%5B::ffff:10.0.0.1%5D:4711", "ipv4:10.0.0.1");
  expect(AF_INET6, "2001:db8:1:2:3:4:5:6", "ipv6:%5B2001:db8:1:2:3:4:5:6%5D:4711", "ipv6:2001:db8:1:2::/64");
  expect(AF_INET6, "::1", "ipv6:[::1]:4711", "ipv6:::/64");
}

TEST(ClientNetworkTest, HostsOfOneNetworkAreOneClient) {
  EXPECT_EQ(ClientOf("ipv6:%5B2001:db8::1%5D:1"), ClientOf("ipv6:%5B2001:db8::ffff:2%5D:2"));
  EXPECT_NE(ClientOf("ipv6:%5B2001:db8::1%5D:1"), ClientOf("ipv6:%5B2001:db8:0:1::1%5D:1"));
  EXPECT_EQ(ClientOf("ipv6:%5Bfe80::1%25eth0%5D:1"), "ipv6:fe80::/64");
}

TEST(ClientNetworkTest, InvalidAddressesAreUnchanged) {
  EXPECT_EQ(ClientOf("unknown"), "unknown");
  EXPECT_EQ(ClientOf("ipv6:nonsense:1"), "ipv6:nonsense");
  EXPECT_EQ(ClientOf(sockaddr_storage{}), "");
}

}  // namespace
}  // namespace longembed
