// Everything that the HTTP port offers.
#ifndef LONGEMBED_SERVER_API_HTTP_ROUTES_H_
#define LONGEMBED_SERVER_API_HTTP_ROUTES_H_

#include "server/api/apis.h"
#include "server/config/config.h"
#include "server/http/dialect.h"
#include "server/rpc/health.h"

namespace longembed {

// OpenAI's, Cohere's and longembed.v1's routes, TEI's where tei.v1 is served, /health, and what the server shows of
// itself. All must outlive them.
Routes MakeRoutes(const Apis& apis, const HttpConfig& config, const Health& health);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_API_HTTP_ROUTES_H_
