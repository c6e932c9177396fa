// Every API that a server offers.
#ifndef LONGEMBED_SERVER_API_APIS_H_
#define LONGEMBED_SERVER_API_APIS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/api/longembed/embedding_service.h"
#include "server/api/tei/tei_service.h"

namespace longembed {

// longembed.v1, and tei.v1 where there is a model for it.
class Apis {
 public:
  // All must outlive it. Errors: of `tei` (TeiServices::Make).
  static absl::StatusOr<std::unique_ptr<Apis>> Make(const TeiConfig& tei, const ApiContext& api,
                                                    const Profiles& profiles, const HostContext& host);

  const LongembedContext& context() const { return context_; }
  bool has_tei() const { return tei_ != nullptr; }
  const TeiContext& tei_context() const { return tei_->context(); }  // REQUIRES: tei.v1 is served.
  // To be registered with a server, which they must outlive.
  Services services();
  // The services that report health.
  std::vector<std::string> names() const;

 private:
  Apis(const ApiContext& api, const Profiles& profiles, const HostContext& host)
      : context_{{api}, profiles}, longembed_(context_, host) {}

  const LongembedContext context_;
  EmbeddingServiceImpl longembed_;
  std::unique_ptr<TeiServices> tei_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_API_APIS_H_
