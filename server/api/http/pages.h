// Serves the OpenAPI document and the page that shows it. Pure functions that any thread can call.
#ifndef LONGEMBED_SERVER_API_HTTP_PAGES_H_
#define LONGEMBED_SERVER_API_HTTP_PAGES_H_

#include <string_view>
#include <vector>

#include "server/http/dialect.h"

namespace longembed {

// Return openapi.json and docs.html, which the build embeds.
std::string_view OpenApiJson();
std::string_view DocsHtml();

// Serves GET /openapi.json, /docs, and /, which redirects browsers to /docs and lists the routes for other clients.
// Without `has_tei` the document has no TEI routes.
std::vector<StaticFile> Pages(bool has_tei);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_API_HTTP_PAGES_H_
