// longembed.v1 as JSON: the proto's messages, with the proto's field names.
#ifndef LONGEMBED_SERVER_API_HTTP_PROTO_JSON_H_
#define LONGEMBED_SERVER_API_HTTP_PROTO_JSON_H_

#include <vector>

#include "server/api/longembed/operations.h"
#include "server/http/dialect.h"

namespace longembed {

// Serves POST /longembed/v1/embed, /explain and /tokenize, and GET /longembed/v1/models and /models/NAME. An error is a
// google.rpc.Status. `context` must outlive the routes.
std::vector<Route> ProtoJsonRoutes(const LongembedContext& context);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_API_HTTP_PROTO_JSON_H_
