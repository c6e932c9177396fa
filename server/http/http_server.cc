#include "server/http/http_server.h"

#include <unistd.h>

#include <algorithm>
#include <new>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/time/clock.h"
#include "server/telemetry/log.h"
#include "system/cores.h"

namespace longembed {
namespace {

constexpr absl::Duration kPollInterval = absl::Milliseconds(10);

HttpTimeouts TimeoutsOf(const ConnectionsConfig& connections) {
  HttpTimeouts timeouts{
      .receive = connections.handshake_timeout, .send = connections.keepalive, .keepalive = connections.keepalive};
  timeouts.idle = connections.max_idle > absl::ZeroDuration() ? connections.max_idle : absl::InfiniteDuration();
  if (connections.max_age > absl::ZeroDuration()) timeouts.max_age = connections.max_age;
  return timeouts;
}

HostContext WithoutKeys(HostContext host) {
  host.api_keys = nullptr;
  return host;
}

}  // namespace

HttpServer::HttpServer(const ServerConfig& config, const HostContext& host, Routes routes,
                       std::unique_ptr<Acceptor> listening, CertificateStore* certificates)
    : routes_(std::move(routes)),
      host_without_keys_(WithoutKeys(host)),
      context_{.routes = routes_,
               .host = host,
               .host_without_keys = host_without_keys_,
               .timeouts = TimeoutsOf(config.connections),
               .allowed_origin = config.http.allowed_origin},
      work_(io_.get_executor()),
      acceptor_(std::move(listening)) {
  if (certificates != nullptr) tls_.emplace(*certificates);
  // These threads parse requests. While one parses a long request, the others serve the rest.
  const int threads = std::max(2, AvailableCores() / 4);
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Run(); });
  acceptor_->Start(
      {.accept = [this](int descriptor) { Take(descriptor); },
       .refuse = [this](Refusal refusal) { context_.host.metrics.CountRefusedConnection(ReasonOf(refusal)); }});
}

// Runs the I/O loop. If memory runs out, only the connection concerned is lost.
void HttpServer::Run() {
  while (!io_.stopped()) {
    try {
      io_.run();
    } catch (const std::bad_alloc&) {
      Log(LogLevel::kWarning, "http connection lost", {{"why", std::string("out of memory")}});
    }
  }
}

HttpServer::~HttpServer() {
  Shutdown(absl::ZeroDuration());
  work_.reset();
}

// Starts a session. If memory runs out or a certificate is invalid, only this connection is closed.
void HttpServer::Take(int descriptor) {
  context_.host.metrics.CountConnection();
  std::shared_ptr<HttpSession> session;
  absl::Cleanup closer = [descriptor] { close(descriptor); };
  try {
    const std::shared_ptr<boost::asio::ssl::context> tls = tls_.has_value() ? tls_->Current() : nullptr;
    std::move(closer).Cancel();  // The session owns it now.
    session = HttpSession::Start(descriptor, io_, tls, context_);
  } catch (const std::exception& error) {
    Log(LogLevel::kWarning, "http connection closed", {{"why", std::string(error.what())}});
  }
  if (session == nullptr) return;
  const MutexLock lock(mutex_);
  if (sessions_.size() >= prune_at_) {
    std::erase_if(sessions_, [](const auto& held) { return held.expired(); });
    prune_at_ = 2 * sessions_.size() + 64;
  }
  sessions_.push_back(session);
  if (ends_after_answer_) session->EndAfterNextAnswer();
}

void HttpServer::AnnounceShutdown() {
  {
    const MutexLock lock(mutex_);
    ends_after_answer_ = true;
  }
  for (const auto& session : Sessions()) session->EndAfterNextAnswer();
}

std::vector<std::shared_ptr<HttpSession>> HttpServer::Sessions() {
  const MutexLock lock(mutex_);
  std::vector<std::shared_ptr<HttpSession>> live;
  for (const std::weak_ptr<HttpSession>& held : sessions_) {
    if (std::shared_ptr<HttpSession> session = held.lock(); session != nullptr) live.push_back(std::move(session));
  }
  return live;
}

void HttpServer::Shutdown(absl::Duration timeout, const std::function<bool()>& is_forced) {
  acceptor_->Stop();
  for (const auto& session : Sessions()) session->Drain();
  const absl::Time end = context_.host.clock.Now() + timeout;
  while (!Sessions().empty() && context_.host.clock.Now() < end && !(is_forced && is_forced()))
    absl::SleepFor(kPollInterval);
  while (true) {
    const auto left = Sessions();
    if (left.empty()) return;
    for (const auto& session : left) session->Close();
    absl::SleepFor(kPollInterval);
  }
}

}  // namespace longembed
