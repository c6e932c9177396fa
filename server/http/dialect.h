// An HTTP API: its routes, and the JSON form of its requests and answers.
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

// Encodes and decodes one call, whose messages are those of the call's method, and formats its errors.
class Dialect : public Codec {
 public:
  struct Error {
    int http_status;
    std::string body;  // JSON.
  };
  virtual Error Describe(const absl::Status& status) const = 0;
  // Returns headers of the answer. REQUIRES: Serialize returned OK.
  virtual Operation::Headers headers() const { return {}; }
};

// Returns the HTTP status of an error: that of its reason if HTTP has one, else that of its code, by the mapping of
// google.rpc.Code.
int HttpStatusOf(const absl::Status& status);

struct Route {
  bool is_get = false;  // False: POST.
  std::string path;     // A path that ends in '/', except "/" itself, is followed by a parameter: "/v1/models/".
  ApiMethod method;
  bool needs_key = true;  // Whether the route needs an API key if the server requires keys.
  // Creates the dialect of a call. `parameter` is that of the path, decoded; empty if the path has none.
  std::function<std::unique_ptr<Dialect>(const std::string& parameter)> dialect;
};

// A constant answer that needs no call, such as a page.
struct StaticFile {
  std::string path;
  std::string content_type;
  std::string content;
  std::string browsers_to;  // Redirect for clients that accept HTML, relative to the path. Empty: none.
};

// All that an HTTP server offers.
struct Routes {
  std::vector<Route> calls;
  std::vector<StaticFile> files;
  // Creates the dialect of a request that has no route or is not HTTP.
  std::function<std::unique_ptr<Dialect>()> fallback;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_HTTP_DIALECT_H_
