// The health of the server for probes and load balancers over HTTP.
#ifndef LONGEMBED_SERVER_API_HTTP_HEALTH_ROUTE_H_
#define LONGEMBED_SERVER_API_HTTP_HEALTH_ROUTE_H_

#include <vector>

#include "server/http/dialect.h"
#include "server/rpc/health.h"

namespace longembed {

// Serves GET /health and /ping: 200, or 503 while the server drains or cannot encode. No API key is required. `health`
// must outlive the routes.
std::vector<Route> HealthRoutes(const Health& health);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_API_HTTP_HEALTH_ROUTE_H_
