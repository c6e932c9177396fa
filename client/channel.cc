#include "client/channel.h"

#include <arpa/inet.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "client/retry_service_config.h"

namespace longembed::client {
namespace {

// gRPC can retry a call only if its buffer holds the whole call. Its default of 256 KiB would leave larger calls
// without retries.
constexpr int kRetryBufferBytes = 64 << 20;

bool IsLoopbackAddress(const std::string& host) {
  in_addr v4;
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) {
    const uint32_t network = ntohl(v4.s_addr) >> 24;
    return network == 127 || v4.s_addr == INADDR_ANY;
  }
  in6_addr v6;
  if (inet_pton(AF_INET6, host.c_str(), &v6) != 1) return false;
  const bool is_mapped_loopback = IN6_IS_ADDR_V4MAPPED(&v6) && v6.s6_addr[12] == 127;
  return IN6_IS_ADDR_LOOPBACK(&v6) || IN6_IS_ADDR_UNSPECIFIED(&v6) || is_mapped_loopback;
}

// Returns the host of "[HOST]:PORT", "HOST:PORT" or "HOST". A bare HOST may be an IPv6 address.
absl::string_view HostOf(absl::string_view address) {
  if (absl::ConsumePrefix(&address, "[")) return address.substr(0, address.find(']'));
  const bool has_port = std::count(address.begin(), address.end(), ':') == 1;
  return has_port ? address.substr(0, address.find(':')) : address;
}

}  // namespace

std::shared_ptr<grpc::Channel> OpenChannel(const ClientOptions& options) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);  // The vectors of many inputs exceed the default of 4 MB.
  arguments.SetServiceConfigJSON(kRetryServiceConfig);
  arguments.SetInt(GRPC_ARG_PER_RPC_RETRY_BUFFER_SIZE, kRetryBufferBytes);
  if (IsLocal(options.server)) arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  // Keepalive pings detect a server that vanished without closing its connection.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  auto credentials = options.tls ? grpc::SslCredentials({.pem_root_certs = options.root_certificates,
                                                         .pem_private_key = options.client_key,
                                                         .pem_cert_chain = options.client_certificate})
                                 : grpc::InsecureChannelCredentials();
  return grpc::CreateCustomChannel(options.server, credentials, arguments);
}

bool IsLocal(absl::string_view target) {
  if (absl::StartsWith(target, "unix:") || absl::StartsWith(target, "unix-abstract:")) return true;
  const bool has_scheme = absl::ConsumePrefix(&target, "dns:") || absl::ConsumePrefix(&target, "ipv4:") ||
                          absl::ConsumePrefix(&target, "ipv6:");
  // The form is "dns://AUTHORITY/HOST:PORT".
  if (has_scheme && absl::ConsumePrefix(&target, "//")) target.remove_prefix(std::min(target.find('/'), target.size()));
  absl::ConsumePrefix(&target, "/");
  const std::string address = absl::AsciiStrToLower(target.substr(0, target.find(',')));
  const std::string decoded = absl::StrReplaceAll(address, {{"%5b", "["}, {"%5d", "]"}});
  const std::string host(absl::StripSuffix(HostOf(decoded), "."));
  return host == "localhost" || absl::EndsWith(host, ".localhost") || IsLoopbackAddress(host);
}

}  // namespace longembed::client
