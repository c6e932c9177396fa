// Cohere's embed API, version 2 (https://docs.cohere.com/reference/embed), as its clients use it.
#ifndef LONGEMBED_SERVER_API_HTTP_COHERE_H_
#define LONGEMBED_SERVER_API_HTTP_COHERE_H_

#include <vector>

#include "server/api/longembed/operations.h"
#include "server/http/dialect.h"

namespace longembed {

// POST /v2/embed. input_type search_query and search_document stand for the model's QUERY and DOCUMENT prompts. Of a
// model that has none for it, and with classification and clustering, a request has the prompt that it would have
// without any. truncate is END by default, as Cohere's is. priority 0 is longembed.v1's INTERACTIVE, 1 to 999 are
// BULK. Beyond Cohere's fields a request may have longembed.v1's extension, normalize and force_dimensions. `context`
// must outlive the routes.
std::vector<Route> CohereRoutes(const LongembedContext& context);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_API_HTTP_COHERE_H_
