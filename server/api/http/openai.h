// OpenAI's embeddings API (https://platform.openai.com/docs/api-reference/embeddings), as its clients use it.
#ifndef LONGEMBED_SERVER_API_HTTP_OPENAI_H_
#define LONGEMBED_SERVER_API_HTTP_OPENAI_H_

#include <vector>

#include "server/api/longembed/operations.h"
#include "server/config/config.h"
#include "server/http/dialect.h"

namespace longembed {

// Serves POST /v1/embeddings, GET /v1/models and GET /v1/models/NAME. Besides OpenAI's fields a request may have
// longembed.v1's extension, prompt_name, prompt, input_type, truncate, max_tokens, normalize, force_dimensions and
// priority. `context` and `config` must outlive the routes.
std::vector<Route> OpenAiRoutes(const LongembedContext& context, const HttpConfig& config);

// Returns the dialect of a request that has no route: it reports errors in OpenAI's form.
std::unique_ptr<Dialect> OpenAiErrors();

}  // namespace longembed

#endif  // LONGEMBED_SERVER_API_HTTP_OPENAI_H_
