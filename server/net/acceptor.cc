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
    return absl::InvalidArgumentError(absl::StrCat("\"", address, "\" is no address; write HOST:PORT or [IPv6]:PORT"));
  }
  std::string host = address.substr(0, colon);
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  return HostAndPort{host, absl::StrCat(number)};
}

// 0 for what is no socket of the internet's.
int BoundPort(int descriptor) {
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  if (getsockname(descriptor, reinterpret_cast<sockaddr*>(&bound), &size) != 0) return 0;
  if (bound.ss_family == AF_INET6) return ntohs(reinterpret_cast<const sockaddr_in6&>(bound).sin6_port);
  if (bound.ss_family == AF_INET) return ntohs(reinterpret_cast<const sockaddr_in&>(bound).sin_port);
  return 0;
}

// Descriptors of this process that are sockets on a port: what listens there and what was accepted. -1 where none is
// left to count them with.
int SocketsOn(int port) {
  DIR* const directory = opendir("/proc/self/fd");
  if (directory == nullptr) return -1;
  int count = 0;
  while (const dirent* entry = readdir(directory)) {
    int descriptor = 0;
    if (absl::SimpleAtoi(entry->d_name, &descriptor) && BoundPort(descriptor) == port) ++count;
  }
  closedir(directory);
  return count;
}

void SetPort(sockaddr* address, int port) {
  if (address->sa_family == AF_INET6) {
    reinterpret_cast<sockaddr_in6*>(address)->sin6_port = htons(static_cast<uint16_t>(port));
  } else {
    reinterpret_cast<sockaddr_in*>(address)->sin_port = htons(static_cast<uint16_t>(port));
  }
}

// A listening socket, or -1 with errno set. What is set here is inherited by the connections.
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

absl::StatusOr<std::unique_ptr<Acceptor>> Acceptor::Listen(const std::string& address, const AcceptorOptions& options) {
  std::unique_ptr<Acceptor> acceptor(new Acceptor(options));
  if (const absl::Status status = acceptor->Bind(address); !status.ok()) return status;
  acceptor->epoll_ = epoll_create1(EPOLL_CLOEXEC);
  acceptor->wake_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (acceptor->epoll_ < 0 || acceptor->wake_ < 0) return SystemError(address);
  return acceptor;
}

absl::Status Acceptor::Bind(const std::string& address) {
  const absl::StatusOr<HostAndPort> parts = Split(address);
  if (!parts.ok()) return parts.status();
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const int error =
      getaddrinfo(parts->host.empty() ? nullptr : parts->host.c_str(), parts->port.c_str(), &hints, &found);
  if (error != 0) return absl::InvalidArgumentError(absl::StrCat("\"", address, "\": ", gai_strerror(error)));
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> addresses(found, freeaddrinfo);
  // "[::]" means IPv4, too; ":50051" is an address of each family.
  const bool only_one = found->ai_next == nullptr;
  std::set<std::string> bound;
  for (const addrinfo* info = found; info != nullptr; info = info->ai_next) {
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
  while (!silent_.empty()) CloseSilent(silent_.begin());
  for (const int listener : listeners_) close(listener);
  listeners_.clear();
}

void Acceptor::Run(const std::stop_token& stop) {
  constexpr int kLookMs = 100;  // How often silent connections are looked at.
  std::array<epoll_event, 64> events;
  while (!stop.stop_requested()) {
    const int count = epoll_wait(epoll_, events.data(), events.size(), silent_.empty() ? -1 : kLookMs);
    for (int i = 0; i < count && !stop.stop_requested(); ++i) {
      const int descriptor = events[i].data.fd;
      if (descriptor == wake_) return;
      // One of neither was silent and has just been closed for another.
      if (silent_by_descriptor_.contains(descriptor)) Hear(descriptor);
      if (std::find(listeners_.begin(), listeners_.end(), descriptor) != listeners_.end()) AcceptFrom(descriptor);
    }
    CloseSilentSince(std::chrono::steady_clock::now() - absl::ToChronoNanoseconds(options_.silence));
  }
}

void Acceptor::AcceptFrom(int listener) {
  const int descriptor = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (descriptor < 0) {
    if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED) return;
    // Descriptors or memory ran out (something else took them): the backlog is left until some are free again, as epoll
    // would go on telling of it.
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    return;
  }
  ++open_;
  ++uncounted_;
  if (Full()) {
    CloseOldestSilent();
    if (Full()) {
      close(descriptor);
      --open_;
      if (handlers_.refuse) handlers_.refuse(Refusal::kLimit);
      return;
    }
  }
  silent_.push_back({descriptor, std::chrono::steady_clock::now()});
  silent_by_descriptor_[descriptor] = std::prev(silent_.end());
  epoll_event event{.events = EPOLLIN | EPOLLRDHUP, .data = {.fd = descriptor}};
  epoll_ctl(epoll_, EPOLL_CTL_ADD, descriptor, &event);
}

void Acceptor::Hear(int descriptor) {
  char byte = 0;
  const ssize_t received = recv(descriptor, &byte, 1, MSG_PEEK);
  if (received < 0 && (errno == EAGAIN || errno == EINTR)) return;
  const auto silent = silent_by_descriptor_.at(descriptor);
  if (received <= 0) return CloseSilent(silent);
  epoll_ctl(epoll_, EPOLL_CTL_DEL, descriptor, nullptr);
  silent_by_descriptor_.erase(descriptor);
  silent_.erase(silent);
  handlers_.accept(descriptor);
}

void Acceptor::CloseSilentSince(SteadyTime limit) {
  while (!silent_.empty() && silent_.front().since < limit) CloseOldestSilent();
}

void Acceptor::CloseOldestSilent() {
  if (silent_.empty()) return;
  CloseSilent(silent_.begin());
  if (handlers_.refuse) handlers_.refuse(Refusal::kSilent);
}

void Acceptor::CloseSilent(std::list<Silent>::iterator silent) {
  close(silent->descriptor);
  silent_by_descriptor_.erase(silent->descriptor);
  silent_.erase(silent);
  --open_;
}

// gRPC does not say when it closes a connection, so those that are open are counted, now and then.
bool Acceptor::Full() {
  constexpr auto kCountEvery = std::chrono::milliseconds(50);
  const SteadyTime now = std::chrono::steady_clock::now();
  if (open_ > options_.max_connections && (uncounted_ >= 64 || now - counted_ > kCountEvery)) {
    const int sockets = SocketsOn(port_);
    if (sockets >= 0) open_ = sockets - static_cast<int>(listeners_.size());
    uncounted_ = 0;
    counted_ = now;
  }
  return open_ > options_.max_connections;
}

}  // namespace longembed
