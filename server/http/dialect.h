// One HTTP API: its routes, its requests and its answers.
#ifndef LONGEMBED_SERVER_HTTP_DIALECT_H_
#define LONGEMBED_SERVER_HTTP_DIALECT_H_

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "server/core/operation.h"
#include "server/rpc/codec.h"

namespace longembed {

// The codec of one call, whose messages are those of the call's method, and the form of its errors.
class Dialect : public Codec {
 public:
  struct Error {
    int http_status;
    std::string body;  // JSON.
  };
  virtual Error Describe(const absl::Status& status) const = 0;
};

// The HTTP status for an error: of its reason where HTTP has one for that, else of its code, as google.rpc.Code
// defines.
int HttpStatusOf(const absl::Status& status);

struct Route {
  bool is_get = false;  // Else POST.
  std::string path;     // One that ends in '/' has a parameter behind it, "/v1/models/", but for "/" itself.
  ApiMethod method;
  bool needs_key = true;  // If the server requires keys.
  // `parameter`: of the path, decoded; empty where it has none.
  std::function<std::unique_ptr<Dialect>(const std::string& parameter)> dialect;
};

// A constant answer that needs no call, such as a page.
struct StaticFile {
  std::string path;
  std::string content_type;
  std::string content;
  std::string browsers_to;  // Redirect of clients that accept HTML, relative to the path. Empty: none.
};

// Everything that an HTTP server offers.
struct Routes {
  std::vector<Route> calls;
  std::vector<StaticFile> files;
  // Of a request that is for none of them, or is not HTTP.
  std::function<std::unique_ptr<Dialect>()> fallback;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_HTTP_DIALECT_H_
