// The HTTP server: HTTP/1.1, for the operations that gRPC serves too, with the same keys, TLS, ledger and drain.
#ifndef LONGEMBED_SERVER_HTTP_HTTP_SERVER_H_
#define LONGEMBED_SERVER_HTTP_HTTP_SERVER_H_

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "server/config/config.h"
#include "server/http/dialect.h"
#include "server/http/session.h"
#include "server/http/tls_context.h"
#include "server/net/acceptor.h"
#include "server/rpc/host_context.h"
#include "server/security/certificates.h"
#include "system/mutex.h"

namespace longembed {

class HttpServer {
 public:
  // Serves the connections of `listening`. All arguments must outlive the server. `certificates` is null for plaintext.
  HttpServer(const ServerConfig& config, const HostContext& host, Routes routes, std::unique_ptr<Acceptor> listening,
             CertificateStore* certificates);
  // Closes the remaining connections and waits for their calls to end.
  ~HttpServer();

  int port() const { return acceptor_->port(); }

  // Ends each connection with its next answer from now on, so that clients connect elsewhere before Shutdown.
  void AnnounceShutdown();

  // Accepts no more connections and answers the requests that have begun. Closes what remains after `timeout`, or as
  // soon as `is_forced` (polled; may be null) returns true.
  void Shutdown(absl::Duration timeout, const std::function<bool()>& is_forced = nullptr);

 private:
  void Run();
  void Take(int descriptor);
  // Returns the sessions that are still open.
  std::vector<std::shared_ptr<HttpSession>> Sessions();

  const Routes routes_;
  const HostContext host_without_keys_;
  const HttpContext context_;
  boost::asio::io_context io_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  std::optional<TlsContext> tls_;  // Used only on the acceptor's thread.
  Mutex mutex_;
  std::vector<std::weak_ptr<HttpSession>> sessions_ ABSL_GUARDED_BY(mutex_);
  size_t prune_at_ ABSL_GUARDED_BY(mutex_) = 64;
  bool ends_after_answer_ ABSL_GUARDED_BY(mutex_) = false;
  std::unique_ptr<Acceptor> acceptor_;
  std::vector<std::jthread> threads_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_HTTP_HTTP_SERVER_H_
