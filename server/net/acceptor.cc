#include "server/net/acceptor.h"

#include <dirent.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <set>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/net/client_network.h"
#include "system/return_if_error.h"

namespace longembed {
namespace {

absl::Status SystemError(const std::string& address) {
  return absl::UnavailableError(absl::StrCat("cannot listen on ", address, ": ", std::strerror(errno)));
}

struct HostAndPort {
  std::string host;
  std::string port;
};

absl::StatusOr<HostAndPort> Split(const std::string& address) {
  const size_t colon = address.rfind(':');
  int number = 0;
  if (colon == std::string::npos || !absl::SimpleAtoi(address.substr(colon + 1), &number) || number < 0 ||
      number > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", address, "\" is not an address; write HOST:PORT or [IPv6]:PORT"));
  }
  std::string host = address.substr(0, colon);
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  return HostAndPort{host, absl::StrCat(number)};
}

using Addresses = std::unique_ptr<addrinfo, void (*)(addrinfo*)>;

absl::StatusOr<Addresses> Resolve(const std::string& address) {
  const absl::StatusOr<HostAndPort> parts = Split(address);
  if (!parts.ok()) return parts.status();
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const int error =
      getaddrinfo(parts->host.empty() ? nullptr : parts->host.c_str(), parts->port.c_str(), &hints, &found);
  if (error != 0) return absl::InvalidArgumentError(absl::StrCat("\"", address, "\": ", gai_strerror(error)));
  return Addresses(found, freeaddrinfo);
}

// Returns 0 for a socket that is not of an internet family.
int BoundPort(int descriptor) {
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  if (getsockname(descriptor, reinterpret_cast<sockaddr*>(&bound), &size) != 0) return 0;
  if (bound.ss_family == AF_INET6) return ntohs(reinterpret_cast<const sockaddr_in6&>(bound).sin6_port);
  if (bound.ss_family == AF_INET) return ntohs(reinterpret_cast<const sockaddr_in&>(bound).sin_port);
  return 0;
}

// Counts the connections of this process on a port by client. Returns nullopt if no descriptor is left to do so.
std::optional<std::unordered_map<std::string, int>> ConnectionsOn(int port) {
  DIR* const directory = opendir("/proc/self/fd");
  if (directory == nullptr) return std::nullopt;
  std::unordered_map<std::string, int> counts;
  while (const dirent* entry = readdir(directory)) {
    int descriptor = 0;
    if (!absl::SimpleAtoi(entry->d_name, &descriptor) || BoundPort(descriptor) != port) continue;
    sockaddr_storage peer{};
    socklen_t size = sizeof peer;
    // A listening socket has no peer. Neither has a connection that its peer has reset, which will be closed in a
    // moment.
    if (getpeername(descriptor, reinterpret_cast<sockaddr*>(&peer), &size) == 0) ++counts[ClientOf(peer)];
  }
  closedir(directory);
  return counts;
}

int PortOf(const addrinfo& info) {
  return ntohs(info.ai_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6*>(info.ai_addr)->sin6_port
                                          : reinterpret_cast<const sockaddr_in*>(info.ai_addr)->sin_port);
}

// Returns whether the address stands for all interfaces.
bool IsAny(const addrinfo& info) {
  if (info.ai_family == AF_INET6) {
    return IN6_IS_ADDR_UNSPECIFIED(&reinterpret_cast<const sockaddr_in6*>(info.ai_addr)->sin6_addr) != 0;
  }
  return reinterpret_cast<const sockaddr_in*>(info.ai_addr)->sin_addr.s_addr == htonl(INADDR_ANY);
}

// `a_alone`: `a` is the only address of its name, so that [::] includes IPv4 (Acceptor::Bind); likewise for `b`.
bool Meet(const addrinfo& a, bool a_alone, const addrinfo& b, bool b_alone) {
  if (PortOf(a) == 0 || PortOf(a) != PortOf(b)) return false;
  if (a.ai_family == b.ai_family) {
    const bool equal = a.ai_addrlen == b.ai_addrlen && std::memcmp(a.ai_addr, b.ai_addr, a.ai_addrlen) == 0;
    return equal || IsAny(a) || IsAny(b);
  }
  return (a.ai_family == AF_INET6 && a_alone && IsAny(a)) || (b.ai_family == AF_INET6 && b_alone && IsAny(b));
}

void SetPort(sockaddr* address, int port) {
  if (address->sa_family == AF_INET6) {
    reinterpret_cast<sockaddr_in6*>(address)->sin6_port = htons(static_cast<uint16_t>(port));
  } else {
    reinterpret_cast<sockaddr_in*>(address)->sin_port = htons(static_cast<uint16_t>(port));
  }
}

// Returns a listening socket, or -1 with errno set. Connections inherit the options that are set here.
int ListenOn(const addrinfo& info, bool also_ipv4) {
  constexpr int kBacklog = 1024;
  const int descriptor = socket(info.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (descriptor < 0) return -1;
  const int one = 1;
  setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  const int only_ipv6 = also_ipv4 ? 0 : 1;
  if (info.ai_family == AF_INET6) setsockopt(descriptor, IPPROTO_IPV6, IPV6_V6ONLY, &only_ipv6, sizeof only_ipv6);
  if (bind(descriptor, info.ai_addr, info.ai_addrlen) == 0 && listen(descriptor, kBacklog) == 0) return descriptor;
  const int error = errno;
  close(descriptor);
  errno = error;
  return -1;
}

}  // namespace

const char* ReasonOf(Refusal refusal) {
  switch (refusal) {
    case Refusal::kLimit:
      return "limit";
    case Refusal::kClientShare:
      return "client_share";
    case Refusal::kSilent:
      return "idle";
  }
  return "";
}

absl::Status CheckAddress(const std::string& address) { return Resolve(address).status(); }

bool TakeSamePort(const std::string& address, const std::string& other) {
  const absl::StatusOr<Addresses> ours = Resolve(address), theirs = Resolve(other);
  if (!ours.ok() || !theirs.ok()) return false;
  for (const addrinfo* a = ours->get(); a != nullptr; a = a->ai_next) {
    for (const addrinfo* b = theirs->get(); b != nullptr; b = b->ai_next) {
      if (Meet(*a, (*ours)->ai_next == nullptr, *b, (*theirs)->ai_next == nullptr)) return true;
    }
  }
  return false;
}

absl::StatusOr<std::unique_ptr<Acceptor>> Acceptor::Listen(const std::string& address, const AcceptorOptions& options) {
  std::unique_ptr<Acceptor> acceptor(new Acceptor(options));
  RETURN_IF_ERROR(acceptor->Bind(address));
  acceptor->epoll_ = epoll_create1(EPOLL_CLOEXEC);
  acceptor->wake_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (acceptor->epoll_ < 0 || acceptor->wake_ < 0) return SystemError(address);
  return acceptor;
}

absl::Status Acceptor::Bind(const std::string& address) {
  const absl::StatusOr<Addresses> addresses = Resolve(address);
  if (!addresses.ok()) return addresses.status();
  // "[::]" includes IPv4, while ":50051" resolves to an address of each family.
  const bool only_one = (*addresses)->ai_next == nullptr;
  std::set<std::string> bound;
  for (const addrinfo* info = addresses->get(); info != nullptr; info = info->ai_next) {
    if (port_ != 0) SetPort(info->ai_addr, port_);
    // A hosts file may give a name the same address twice.
    if (!bound.emplace(reinterpret_cast<const char*>(info->ai_addr), info->ai_addrlen).second) continue;
    const int listener = ListenOn(*info, /*also_ipv4=*/only_one);
    // A machine without IPv6 still resolves localhost to ::1.
    if (listener < 0 && (errno == EADDRNOTAVAIL || errno == EAFNOSUPPORT)) continue;
    if (listener < 0) return SystemError(address);
    listeners_.push_back(listener);
    port_ = BoundPort(listener);
  }
  return listeners_.empty() ? SystemError(address) : absl::OkStatus();
}

Acceptor::~Acceptor() {
  Stop();
  if (epoll_ >= 0) close(epoll_);
  if (wake_ >= 0) close(wake_);
}

void Acceptor::Start(AcceptorHandlers handlers) {
  handlers_ = std::move(handlers);
  for (const int listener : listeners_) {
    epoll_event event{.events = EPOLLIN, .data = {.fd = listener}};
    epoll_ctl(epoll_, EPOLL_CTL_ADD, listener, &event);
  }
  epoll_event event{.events = EPOLLIN, .data = {.fd = wake_}};
  epoll_ctl(epoll_, EPOLL_CTL_ADD, wake_, &event);
  thread_ = std::jthread([this](const std::stop_token& stop) { Run(stop); });
}

void Acceptor::Stop() {
  if (thread_.joinable()) {
    thread_.request_stop();
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(wake_, &one, sizeof one);
    thread_.join();
  }
  while (!idle_.empty()) CloseIdle(idle_.begin());
  for (const int listener : listeners_) close(listener);
  listeners_.clear();
}

void Acceptor::Run(const std::stop_token& stop) {
  constexpr int kPollMs = 100;  // Interval between checks of idle connections.
  std::array<epoll_event, 64> events;
  while (!stop.stop_requested()) {
    const int count = epoll_wait(epoll_, events.data(), events.size(), idle_.empty() ? -1 : kPollMs);
    for (int i = 0; i < count && !stop.stop_requested(); ++i) {
      const int descriptor = events[i].data.fd;
      if (descriptor == wake_) return;
      // An event may be of an idle connection that was closed a moment ago, to make room for another: ignored.
      if (idle_by_descriptor_.contains(descriptor)) OnReadable(descriptor);
      if (std::find(listeners_.begin(), listeners_.end(), descriptor) != listeners_.end()) AcceptFrom(descriptor);
    }
    CloseSilentSince(std::chrono::steady_clock::now() - absl::ToChronoNanoseconds(options_.silence));
  }
}

void Acceptor::AcceptFrom(int listener) {
  sockaddr_storage peer{};
  socklen_t size = sizeof peer;
  const int descriptor = accept4(listener, reinterpret_cast<sockaddr*>(&peer), &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (descriptor < 0) {
    if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED) return;
    // Descriptors or memory have run out, because something else took them. The backlog waits until some are free
    // again. The sleep is needed because epoll keeps reporting the backlog.
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    return;
  }
  const std::string client = ClientOf(peer);
  ++open_;
  ++open_by_client_[client];
  std::optional<Refusal> refusal = TooMany(client);
  if (refusal.has_value() && MakeRoom(*refusal, client)) refusal = TooMany(client);
  if (refusal.has_value()) {
    if (handlers_.refuse) handlers_.refuse(*refusal);  // First, so that a client that sees the end finds it counted.
    close(descriptor);
    CountClosed(client);
    return;
  }
  ++uncounted_;
  idle_.push_back({descriptor, std::chrono::steady_clock::now(), client});
  idle_by_descriptor_[descriptor] = std::prev(idle_.end());
  epoll_event event{.events = EPOLLIN | EPOLLRDHUP, .data = {.fd = descriptor}};
  epoll_ctl(epoll_, EPOLL_CTL_ADD, descriptor, &event);
}

void Acceptor::OnReadable(int descriptor) {
  char byte = 0;
  const ssize_t received = recv(descriptor, &byte, 1, MSG_PEEK);
  if (received < 0 && (errno == EAGAIN || errno == EINTR)) return;
  const auto idle = idle_by_descriptor_.at(descriptor);
  if (received <= 0) return CloseIdle(idle);
  epoll_ctl(epoll_, EPOLL_CTL_DEL, descriptor, nullptr);
  idle_by_descriptor_.erase(descriptor);
  idle_.erase(idle);
  handlers_.accept(descriptor);
}

void Acceptor::CloseSilentSince(SteadyTime limit) {
  while (!idle_.empty() && idle_.front().since < limit) CloseOldestIdle();
}

void Acceptor::CloseOldestIdle() {
  if (idle_.empty()) return;
  if (handlers_.refuse) handlers_.refuse(Refusal::kSilent);
  CloseIdle(idle_.begin());
}

void Acceptor::CloseIdle(std::list<Idle>::iterator idle) {
  close(idle->descriptor);
  CountClosed(idle->client);
  idle_by_descriptor_.erase(idle->descriptor);
  idle_.erase(idle);
}

// Returns the reason for refusing the client's newest connection, if there is one. Nothing reports when a connection
// that was handed over is closed. So open connections are counted from time to time, by looking at every descriptor of
// the process. Connections accepted since then may be closed already, so a new one is refused only after a recent
// count.
std::optional<Refusal> Acceptor::TooMany(const std::string& client) {
  constexpr auto kCountEvery = std::chrono::milliseconds(20);
  const std::optional<Refusal> refusal = TooManyByCount(client);
  if (!refusal.has_value()) return std::nullopt;
  // Few connections came since the last count, so it is still accurate. Counting for each one would be slow in a flood.
  const bool recent = std::chrono::steady_clock::now() < counted_ + kCountEvery;
  if (recent && uncounted_ <= options_.max_connections / 8) return refusal;
  CountOpen();
  return TooManyByCount(client);
}

std::optional<Refusal> Acceptor::TooManyByCount(const std::string& client) const {
  if (open_ > options_.max_connections) return Refusal::kLimit;
  const int free = options_.max_connections - (open_ - 1);  // Before this connection was accepted.
  const double share = options_.max_client_share;
  const auto found = open_by_client_.find(client);
  const int held = found == open_by_client_.end() ? 0 : found->second;
  if (held * (1 - share) > free * share) return Refusal::kClientShare;
  return std::nullopt;
}

bool Acceptor::MakeRoom(Refusal refusal, const std::string& client) {
  const auto oldest = std::find_if(idle_.begin(), idle_.end(), [&](const Idle& idle) {
    return refusal == Refusal::kLimit || idle.client == client;
  });
  if (oldest == idle_.end()) return false;
  if (handlers_.refuse) handlers_.refuse(Refusal::kSilent);
  CloseIdle(oldest);
  return true;
}

void Acceptor::CountClosed(const std::string& client) {
  --open_;
  const auto found = open_by_client_.find(client);
  if (found != open_by_client_.end() && --found->second <= 0) open_by_client_.erase(found);
}

void Acceptor::CountOpen() {
  std::optional<ClientCounts> counts = ConnectionsOn(port_);
  uncounted_ = 0;
  counted_ = std::chrono::steady_clock::now();
  if (!counts.has_value()) return;
  open_by_client_ = *std::move(counts);
  open_ = 0;
  for (const auto& [client, count] : open_by_client_) open_ += count;
}

}  // namespace longembed
