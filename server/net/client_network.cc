#include "server/net/client_network.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace longembed {
namespace {

constexpr std::string_view kIpv6 = "ipv6:";

// `address` is of the family's own type.
std::string Text(int family, const void* address) {
  char text[INET6_ADDRSTRLEN] = "";
  inet_ntop(family, address, text, sizeof text);
  return text;
}

std::string ClientOf(in6_addr address) {
  constexpr size_t kIpv4Begins = 12, kNetworkBytes = 8;
  if (IN6_IS_ADDR_V4MAPPED(&address)) return absl::StrCat("ipv4:", Text(AF_INET, address.s6_addr + kIpv4Begins));
  std::fill(address.s6_addr + kNetworkBytes, std::end(address.s6_addr), 0);
  return absl::StrCat(kIpv6.data(), Text(AF_INET6, &address), "/64");
}

}  // namespace

std::string ClientOf(const sockaddr_storage& peer) {
  if (peer.ss_family == AF_INET6) return ClientOf(reinterpret_cast<const sockaddr_in6&>(peer).sin6_addr);
  if (peer.ss_family != AF_INET) return "";
  return absl::StrCat("ipv4:", Text(AF_INET, &reinterpret_cast<const sockaddr_in&>(peer).sin_addr));
}

std::string ClientOf(std::string_view peer) {
  const std::string_view host = peer.substr(0, peer.rfind(':'));
  if (host.substr(0, kIpv6.size()) != kIpv6) return std::string(host);
  // gRPC escapes the brackets and the zone of "[2001:db8::1%eth0]" as in a URI.
  std::string text =
      absl::StrReplaceAll(std::string(host.substr(kIpv6.size())), {{"%5B", ""}, {"%5D", ""}, {"[", ""}, {"]", ""}});
  text = text.substr(0, text.find('%'));
  in6_addr address{};
  return inet_pton(AF_INET6, text.c_str(), &address) == 1 ? ClientOf(address) : std::string(host);
}

}  // namespace longembed
