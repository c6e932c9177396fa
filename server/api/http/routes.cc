#include "server/api/http/routes.h"

#include <iterator>
#include <utility>

#include "server/api/http/cohere.h"
#include "server/api/http/health_route.h"
#include "server/api/http/openai.h"
#include "server/api/http/pages.h"
#include "server/api/http/proto_json.h"
#include "server/api/http/tei.h"

namespace longembed {

Routes MakeRoutes(const Apis& apis, const HttpConfig& config, const Health& health) {
  Routes routes{.files = Pages(apis.has_tei()), .fallback = &OpenAiErrors};
  const auto add = [&routes](std::vector<Route> more) {
    routes.calls.insert(routes.calls.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
  };
  add(OpenAiRoutes(apis.context(), config));
  add(CohereRoutes(apis.context()));
  if (apis.has_tei()) add(TeiRoutes(apis.context(), apis.tei_context()));
  add(ProtoJsonRoutes(apis.context()));
  add(HealthRoutes(health));
  return routes;
}

}  // namespace longembed
