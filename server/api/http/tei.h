// TEI's HTTP API (https://huggingface.github.io/text-embeddings-inference), as its clients use it.
#ifndef LONGEMBED_SERVER_API_HTTP_TEI_H_
#define LONGEMBED_SERVER_API_HTTP_TEI_H_

#include <vector>

#include "server/api/longembed/operations.h"
#include "server/api/tei/operations.h"
#include "server/http/dialect.h"

namespace longembed {

// Serves POST /embed (also as / and /invocations, like TEI), /embed_all, /embed_sparse, /tokenize and /decode, and GET
// /info, with the model of tei.v1. Besides TEI's fields, requests for vectors may have longembed.v1's extension,
// max_tokens and priority. Both arguments must outlive the routes.
std::vector<Route> TeiRoutes(const LongembedContext& context, const TeiContext& tei);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_API_HTTP_TEI_H_
