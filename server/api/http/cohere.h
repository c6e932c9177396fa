// Cohere's embed API, version 2 (https://docs.cohere.com/reference/embed), as its clients use it.
#ifndef LONGEMBED_SERVER_API_HTTP_COHERE_H_
#define LONGEMBED_SERVER_API_HTTP_COHERE_H_

#include <vector>

#include "server/api/longembed/operations.h"
#include "server/http/dialect.h"

namespace longembed {

// Serves POST /v2/embed. The values search_query and search_document of input_type choose the model's QUERY and
// DOCUMENT prompts. If the model has no such prompt, or if input_type is classification or clustering, the request gets
// the same prompt as one that names none. truncate is END by default, as in Cohere's API. priority 0 is longembed.v1's
// INTERACTIVE, and 1 to 999 are BULK. Besides Cohere's fields a request may have longembed.v1's extension, normalize
// and force_dimensions. `context` must outlive the routes.
std::vector<Route> CohereRoutes(const LongembedContext& context);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_API_HTTP_COHERE_H_
