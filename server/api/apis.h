// All APIs that a server offers.
#ifndef LONGEMBED_SERVER_API_APIS_H_
#define LONGEMBED_SERVER_API_APIS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/api/longembed/embedding_service.h"
#include "server/api/tei/tei_service.h"

namespace longembed {

// The services of longembed.v1, and those of tei.v1 if a model serves it.
class Apis {
 public:
  // Creates the services. All arguments must outlive them. Errors: those of TeiServices::Make, about `tei`.
  static absl::StatusOr<std::unique_ptr<Apis>> Make(const TeiConfig& tei, const ApiContext& api,
                                                    const Profiles& profiles, const HostContext& host);

  const LongembedContext& context() const { return context_; }
  bool has_tei() const { return tei_ != nullptr; }
  const TeiContext& tei_context() const { return tei_->context(); }  // REQUIRES: tei.v1 is served.
  // Returns the services to register with a gRPC server. The Apis must outlive that server.
  Services services();
  // Returns the names of the services that report health.
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
