// Serves the OpenAPI document and the page that shows it. Pure functions: any thread.
#ifndef LONGEMBED_SERVER_API_HTTP_PAGES_H_
#define LONGEMBED_SERVER_API_HTTP_PAGES_H_

#include <string_view>
#include <vector>

#include "server/http/dialect.h"

namespace longembed {

// openapi.json and docs.html, as the build embedded them.
std::string_view OpenApiJson();
std::string_view DocsHtml();

// GET /openapi.json, /docs, and /, which redirects browsers to /docs and lists the routes for others. Without
// `has_tei` the document has no routes of TEI.
std::vector<StaticFile> Pages(bool has_tei);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_API_HTTP_PAGES_H_
