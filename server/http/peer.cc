#include "server/http/peer.h"

#include <arpa/inet.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>

#include <memory>

#include "absl/strings/str_cat.h"

namespace longembed {
namespace {

template <typename Type, void (*Free)(Type*)>
struct Freer {
  void operator()(Type* held) const { Free(held); }
};
using X509Ptr = std::unique_ptr<X509, Freer<X509, X509_free>>;
using NamesPtr = std::unique_ptr<GENERAL_NAMES, Freer<GENERAL_NAMES, GENERAL_NAMES_free>>;

std::string Text(const ASN1_STRING* text) {
  return {reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)), static_cast<size_t>(ASN1_STRING_length(text))};
}

std::string IpText(const ASN1_STRING& bytes) {
  char text[INET6_ADDRSTRLEN] = "";
  const auto length = static_cast<size_t>(ASN1_STRING_length(&bytes));
  if (length != sizeof(in_addr) && length != sizeof(in6_addr)) return "";
  const int family = length == sizeof(in_addr) ? AF_INET : AF_INET6;
  return inet_ntop(family, ASN1_STRING_get0_data(&bytes), text, sizeof(text)) == nullptr ? "" : text;
}

std::string AlternativeName(const X509& certificate) {
  const NamesPtr names(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(&certificate, NID_subject_alt_name, nullptr, nullptr)));
  for (int i = 0; names != nullptr && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* const name = sk_GENERAL_NAME_value(names.get(), i);
    switch (name->type) {
      case GEN_DNS:
      case GEN_EMAIL:
      case GEN_URI:
        return Text(name->d.ia5);
      case GEN_IPADD:
        return IpText(*name->d.iPAddress);
      default:
        break;
    }
  }
  return "";
}

std::string CommonName(const X509& certificate) {
  X509_NAME* const subject = X509_get_subject_name(&certificate);
  const int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
  return at < 0 ? "" : Text(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
}

}  // namespace

std::optional<Peer> PeerOf(int descriptor) {
  sockaddr_storage address{};
  socklen_t length = sizeof(address);
  if (getpeername(descriptor, reinterpret_cast<sockaddr*>(&address), &length) != 0) return std::nullopt;
  char text[INET6_ADDRSTRLEN] = "";
  if (address.ss_family == AF_INET) {
    const auto& ipv4 = reinterpret_cast<const sockaddr_in&>(address);
    inet_ntop(AF_INET, &ipv4.sin_addr, text, sizeof(text));
    return Peer{.address = absl::StrCat("ipv4:", text, ":", ntohs(ipv4.sin_port))};
  }
  if (address.ss_family != AF_INET6) return std::nullopt;
  const auto& ipv6 = reinterpret_cast<const sockaddr_in6&>(address);
  inet_ntop(AF_INET6, &ipv6.sin6_addr, text, sizeof(text));
  return Peer{.address = absl::StrCat("ipv6:[", text, "]:", ntohs(ipv6.sin6_port)), .is_ipv6 = true};
}

std::string CertificateNameOf(SSL* connection) {
  const X509Ptr certificate(SSL_get1_peer_certificate(connection));
  if (certificate == nullptr) return "";
  std::string name = AlternativeName(*certificate);
  return name.empty() ? CommonName(*certificate) : name;
}

}  // namespace longembed
