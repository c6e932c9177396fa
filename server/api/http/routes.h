// All routes of the HTTP port.
#ifndef LONGEMBED_SERVER_API_HTTP_ROUTES_H_
#define LONGEMBED_SERVER_API_HTTP_ROUTES_H_

#include "server/api/apis.h"
#include "server/config/config.h"
#include "server/http/dialect.h"
#include "server/rpc/health.h"

namespace longembed {

// Returns the routes of OpenAI, Cohere and longembed.v1, those of TEI if tei.v1 is served, /health and /ping, and the
// server's own pages (pages.h). All arguments must outlive the routes.
Routes MakeRoutes(const Apis& apis, const HttpConfig& config, const Health& health);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_API_HTTP_ROUTES_H_
