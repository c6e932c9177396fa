// One HTTP connection: requests one after the other, each a call under a UnaryHost.
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

struct HttpTimes {
  absl::Duration header = absl::Seconds(5);  // For a request's header, once its first byte is here; for TLS before it.
  absl::Duration idle = absl::Minutes(30);   // Between requests.
  absl::Duration stall = absl::Minutes(1);   // While a client does not read its answer.
  absl::Duration max_age = absl::InfiniteDuration();  // Of a connection: then the next answer closes it.
};

// State shared by the sessions of a server. All must outlive them.
struct HttpContext {
  const Routes& routes;
  const HostContext& host;
  const HostContext& open_host;  // The same without keys.
  HttpTimes times;
  std::string allowed_origin;  // Of browsers' pages on other sites (CORS): an origin, "*", or empty for none.
};

class HttpSession {
 public:
  virtual ~HttpSession() = default;

  // Takes a connected, non-blocking socket and serves it until either side ends it; keeps itself alive. `tls`: null for
  // plaintext.
  static std::shared_ptr<HttpSession> Start(int descriptor, boost::asio::io_context& io,
                                            std::shared_ptr<boost::asio::ssl::context> tls, const HttpContext& context);

  // Ends the connection once no request is in work. Any thread.
  virtual void Drain() = 0;
  // Ends it now, and cancels the request in work. Any thread.
  virtual void Close() = 0;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_HTTP_SESSION_H_
