#include "server/api/apis.h"

#include <utility>

namespace longembed {

absl::StatusOr<std::unique_ptr<Apis>> Apis::Make(const TeiConfig& tei, const ApiContext& api, const Profiles& profiles,
                                                 const HostContext& host) {
  std::unique_ptr<Apis> apis(new Apis(api, profiles, host));
  absl::StatusOr<std::unique_ptr<TeiServices>> services = TeiServices::Make(tei, apis->context_, profiles, host);
  if (!services.ok()) return services.status();
  apis->tei_ = *std::move(services);
  return apis;
}

Services Apis::services() {
  Services all{{v1::EmbeddingService::service_full_name(), &longembed_}};
  if (tei_ == nullptr) return all;
  const Services tei = tei_->services();
  all.insert(all.end(), tei.begin(), tei.end());
  return all;
}

std::vector<std::string> Apis::names() const {
  std::vector<std::string> all{v1::EmbeddingService::service_full_name()};
  if (tei_ == nullptr) return all;
  const std::vector<std::string> tei = TeiServices::names();
  all.insert(all.end(), tei.begin(), tei.end());
  return all;
}

}  // namespace longembed
