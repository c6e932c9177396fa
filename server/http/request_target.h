// Finds the route of a request. Pure functions that any thread can call.
#ifndef LONGEMBED_SERVER_HTTP_REQUEST_TARGET_H_
#define LONGEMBED_SERVER_HTTP_REQUEST_TARGET_H_

#include <optional>
#include <string>
#include <string_view>

#include "server/http/dialect.h"

namespace longembed {

// Returns the percent-decoded path of a request's target, without what follows '?'. The target may be a whole address,
// "http://host/path". The text may be untrusted. Returns nullopt for any other text, or if the encoding
// is wrong.
std::optional<std::string> PathOf(std::string_view target);

struct Match {
  const Route* route = nullptr;      // Null: no route has this path and method.
  std::string parameter;             // The parameter of the path.
  const StaticFile* file = nullptr;  // Null: the path is not that of a file.
  std::string allowed;               // The methods that the path takes, "GET, HEAD, OPTIONS"; empty: unknown path.
};

Match FindRoute(const Routes& routes, const std::string& path, bool is_get);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_HTTP_REQUEST_TARGET_H_
