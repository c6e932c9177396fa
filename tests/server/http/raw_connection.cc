#include "tests/server/http/raw_connection.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <utility>

namespace longembed {

RawConnection::RawConnection(int port) : descriptor_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in address{.sin_family = AF_INET, .sin_port = htons(static_cast<uint16_t>(port))};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(descriptor_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) std::abort();
}

RawConnection::~RawConnection() { close(descriptor_); }

bool RawConnection::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(descriptor_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

bool RawConnection::Fill() {
  constexpr int kTenSeconds = 10000;
  pollfd waiting{.fd = descriptor_, .events = POLLIN};
  if (poll(&waiting, 1, kTenSeconds) <= 0) {
    timed_out_ = true;
    return false;
  }
  char bytes[4096];
  const ssize_t received = recv(descriptor_, bytes, sizeof(bytes), 0);
  if (received <= 0) return false;
  buffer_.append(bytes, static_cast<size_t>(received));
  return true;
}

std::string RawConnection::ReadHeader() {
  size_t end = buffer_.find("\r\n\r\n");
  while (end == std::string::npos && Fill()) end = buffer_.find("\r\n\r\n");
  const size_t size = end == std::string::npos ? buffer_.size() : end + 4;
  std::string header = buffer_.substr(0, size);
  buffer_.erase(0, size);
  return header;
}

std::string RawConnection::ReadResponse() {
  std::string response = ReadHeader();
  constexpr std::string_view kLength = "Content-Length: ";
  const size_t at = response.find(kLength);
  const size_t length = at == std::string::npos ? 0 : std::strtoul(response.c_str() + at + kLength.size(), nullptr, 10);
  while (buffer_.size() < length && Fill()) {
  }
  response += buffer_.substr(0, length);
  buffer_.erase(0, length);
  return response;
}

std::string RawConnection::ReadToEnd(bool& closed) {
  while (Fill()) {
  }
  closed = !timed_out_;
  return std::exchange(buffer_, "");
}

}  // namespace longembed
