#include "server/telemetry/metrics_port.h"

#include <microhttpd.h>
#include <sys/socket.h>

#include <exception>
#include <string_view>
#include <utility>

namespace longembed {
namespace {

constexpr int kMaxConnections = 16;

MHD_Result Respond(MHD_Connection* connection, unsigned status, const std::string& text) {
  const std::unique_ptr<MHD_Response, decltype(&MHD_destroy_response)> response(
      MHD_create_response_from_buffer(text.size(), const_cast<char*>(text.data()), MHD_RESPMEM_MUST_COPY),
      &MHD_destroy_response);
  if (response == nullptr) return MHD_NO;
  MHD_add_response_header(response.get(), MHD_HTTP_HEADER_CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
  if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
    MHD_add_response_header(response.get(), MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
  return MHD_queue_response(connection, status, response.get());
}

// Called as soon as the headers have arrived; bodies are not read.
MHD_Result Answer(void* scrape, MHD_Connection* connection, const char* url, const char* method, const char*,
                  const char*, size_t*, void**) {
  const std::string_view verb = method;
  if (verb != MHD_HTTP_METHOD_GET && verb != MHD_HTTP_METHOD_HEAD) {
    return Respond(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD are served here\n");
  }
  if (std::string_view(url) != "/metrics") return Respond(connection, MHD_HTTP_NOT_FOUND, "metrics are at /metrics\n");
  try {
    return Respond(connection, MHD_HTTP_OK, (*static_cast<const std::function<std::string()>*>(scrape))());
  } catch (const std::exception&) {  // Out of memory: closes the connection. The next scrape may succeed.
    return MHD_NO;
  }
}

}  // namespace

void MetricsPort::StopDaemon::operator()(MHD_Daemon* daemon) const { MHD_stop_daemon(daemon); }

absl::StatusOr<std::unique_ptr<MetricsPort>> MetricsPort::Start(const std::string& address,
                                                                std::function<std::string()> scrape) {
  constexpr unsigned kStallSeconds = 10;
  constexpr size_t kConnectionBytes = 32 << 10;  // For headers, and for each piece that is written.
  absl::StatusOr<std::unique_ptr<Acceptor>> acceptor = Acceptor::Listen(address, {.max_connections = kMaxConnections});
  if (!acceptor.ok()) return acceptor.status();
  std::unique_ptr<MetricsPort> port(new MetricsPort(std::move(scrape)));
  port->daemon_.reset(MHD_start_daemon(
      MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_NO_LISTEN_SOCKET | MHD_USE_ITC, 0, nullptr, nullptr, &Answer,
      const_cast<void*>(static_cast<const void*>(&port->scrape_)), MHD_OPTION_CONNECTION_LIMIT,
      static_cast<unsigned>(kMaxConnections), MHD_OPTION_CONNECTION_TIMEOUT, kStallSeconds,
      MHD_OPTION_CONNECTION_MEMORY_LIMIT, kConnectionBytes, MHD_OPTION_END));
  if (port->daemon_ == nullptr) return absl::UnavailableError("the HTTP server of the metrics cannot start");
  port->acceptor_ = *std::move(acceptor);
  port->acceptor_->Start({.accept = [daemon = port->daemon_.get()](int descriptor) {
    sockaddr_storage peer{};
    socklen_t size = sizeof peer;
    getpeername(descriptor, reinterpret_cast<sockaddr*>(&peer), &size);
    MHD_add_connection(daemon, descriptor, reinterpret_cast<const sockaddr*>(&peer), size);
  }});
  return port;
}

MetricsPort::~MetricsPort() = default;

}  // namespace longembed
