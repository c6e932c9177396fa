#include "server/http/request_target.h"

#include <algorithm>

#include "absl/strings/match.h"

namespace longembed {
namespace {

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// Returns a target without the scheme and the host that it may begin with: "http://host/path" is what clients send to a
// proxy, and every server must take it.
std::string_view WithoutHost(std::string_view target) {
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (!absl::EqualsIgnoreCase(std::string(target.substr(0, scheme.size())), std::string(scheme))) continue;
    target.remove_prefix(scheme.size());
    const size_t host = std::min(target.find('/'), target.size());
    if (host == 0) return "";
    return host == target.size() ? "/" : target.substr(host);
  }
  return target;
}

// Returns the parameter of the path if the path is that of the route, else nullopt.
std::optional<std::string> ParameterOf(const Route& route, const std::string& path) {
  const bool has_parameter = route.path.size() > 1 && route.path.back() == '/';
  if (!has_parameter) return path == route.path ? std::optional<std::string>("") : std::nullopt;
  if (path.size() <= route.path.size() || !absl::StartsWith(path, route.path)) return std::nullopt;
  return path.substr(route.path.size());
}

}  // namespace

std::optional<std::string> PathOf(std::string_view target) {
  target = WithoutHost(target.substr(0, target.find_first_of("?#")));
  if (target.empty() || target.front() != '/') return std::nullopt;
  std::string path;
  for (size_t i = 0; i < target.size(); ++i) {
    if (target[i] != '%') {
      path += target[i];
      continue;
    }
    const int high = i + 2 < target.size() ? HexDigit(target[i + 1]) : -1;
    const int low = i + 2 < target.size() ? HexDigit(target[i + 2]) : -1;
    if (high < 0 || low < 0) return std::nullopt;
    path += static_cast<char>(16 * high + low);
    i += 2;
  }
  return path;
}

Match FindRoute(const Routes& routes, const std::string& path, bool is_get) {
  Match match;
  bool get = false, post = false;
  for (const StaticFile& file : routes.files) {
    if (file.path != path) continue;
    get = true;
    if (is_get) match.file = &file;
  }
  for (const Route& route : routes.calls) {
    const std::optional<std::string> parameter = ParameterOf(route, path);
    if (!parameter.has_value()) continue;
    (route.is_get ? get : post) = true;
    if (route.is_get != is_get) continue;
    match.route = &route;
    match.parameter = *parameter;
  }
  if (get) match.allowed = "GET, HEAD, ";
  if (post) match.allowed += "POST, ";
  if (get || post) match.allowed += "OPTIONS";
  return match;
}

}  // namespace longembed
