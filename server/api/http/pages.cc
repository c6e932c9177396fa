#include "server/api/http/pages.h"

#include <nlohmann/json.hpp>
#include <string>

namespace longembed {
namespace {

using nlohmann::ordered_json;

// Returns whether an operation of the path belongs to the API.
bool IsOf(const ordered_json& path, const char* api) {
  for (const auto& [method, operation] : path.items()) {
    if (operation["tags"].front() == api) return true;
  }
  return false;
}

std::string Without(const char* api, std::string_view document) {
  ordered_json json = ordered_json::parse(document);
  ordered_json paths = ordered_json::object(), tags = ordered_json::array();
  for (const auto& [path, operations] : json["paths"].items()) {
    if (!IsOf(operations, api)) paths[path] = operations;
  }
  for (const ordered_json& tag : json["tags"]) {
    if (tag["name"] != api) tags.push_back(tag);
  }
  json["paths"] = std::move(paths);
  json["tags"] = std::move(tags);
  return json.dump(1) + "\n";
}

constexpr char kIndex[] =
    R"({"name":"longembed-server","docs":"/docs","openapi":"/openapi.json","health":"/health","models":"/v1/models"})"
    "\n";

}  // namespace

std::vector<StaticFile> Pages(bool has_tei) {
  constexpr char kJson[] = "application/json";
  std::string document = has_tei ? std::string(OpenApiJson()) : Without("TEI", OpenApiJson());
  return {{.path = "/", .content_type = kJson, .content = kIndex, .browsers_to = "docs"},
          {.path = "/docs", .content_type = "text/html; charset=utf-8", .content = std::string(DocsHtml())},
          {.path = "/openapi.json", .content_type = kJson, .content = std::move(document)}};
}

}  // namespace longembed
