// One HTTP connection. It serves one request after the other, each as a call under a UnaryHost.
#ifndef LONGEMBED_SERVER_HTTP_SESSION_H_
#define LONGEMBED_SERVER_HTTP_SESSION_H_

#include <boost/asio/io_context.hpp>
#include <boost/asio/ssl/context.hpp>
#include <memory>
#include <string>

#include "absl/time/time.h"
#include "server/http/dialect.h"
#include "server/rpc/host_context.h"

namespace longembed {

// Timeouts of a connection.
struct HttpTimeouts {
  absl::Duration receive = absl::Seconds(5);          // For TLS, a request's header, and each 16 KiB of its body.
  absl::Duration idle = absl::Minutes(30);            // Between requests.
  absl::Duration send = absl::Minutes(1);             // For the client to read each 16 KiB of an answer.
  absl::Duration keepalive = absl::Minutes(1);        // Silence after which the kernel pings the client.
  absl::Duration max_age = absl::InfiniteDuration();  // Age of a connection; the next answer closes it.
};

// State that the sessions of a server share. All of it must outlive them.
struct HttpContext {
  const Routes& routes;
  const HostContext& host;
  const HostContext& host_without_keys;  // The same host without API keys.
  HttpTimeouts timeouts;
  std::string allowed_origin;  // Origin of web pages that may call (CORS): an origin, "*", or empty for none.
};

class HttpSession {
 public:
  virtual ~HttpSession() = default;

  // Takes over a connected, non-blocking socket, also where it throws, and serves it until either side ends the
  // connection. The session keeps itself alive until then. `tls` is null for plaintext.
  static std::shared_ptr<HttpSession> Start(int descriptor, boost::asio::io_context& io,
                                            std::shared_ptr<boost::asio::ssl::context> tls, const HttpContext& context);

  // Ends the connection with the next answer, which tells the client so. May be called on any thread.
  virtual void EndAfterNextAnswer() = 0;
  // Ends the connection once no request is in progress. May be called on any thread.
  virtual void Drain() = 0;
  // Ends the connection now and cancels the request in progress. May be called on any thread.
  virtual void Close() = 0;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_HTTP_SESSION_H_
