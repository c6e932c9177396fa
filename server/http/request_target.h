// Which route a request is for. Pure functions: any thread.
#ifndef LONGEMBED_SERVER_HTTP_REQUEST_TARGET_H_
#define LONGEMBED_SERVER_HTTP_REQUEST_TARGET_H_

#include <optional>
#include <string>
#include <string_view>

#include "server/http/dialect.h"

namespace longembed {

// The path of a request's target, percent-decoded; what follows '?' is left out. Takes untrusted text. Nullopt: it is
// not a path, or not properly encoded.
std::optional<std::string> PathOf(std::string_view target);

struct Match {
  const Route* route = nullptr;      // Null: none has this path and method.
  std::string parameter;             // Of its path.
  const StaticFile* file = nullptr;  // Null: it is none.
  std::string allowed;               // The methods of the path, "GET, HEAD, OPTIONS"; empty: unknown path.
};

Match FindRoute(const Routes& routes, const std::string& path, bool is_get);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_HTTP_REQUEST_TARGET_H_
