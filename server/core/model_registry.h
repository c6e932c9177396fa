// The models that a server serves.
#ifndef LONGEMBED_SERVER_CORE_MODEL_REGISTRY_H_
#define LONGEMBED_SERVER_CORE_MODEL_REGISTRY_H_

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/manifest/manifest.h"
#include "server/core/served_model.h"

namespace longembed {

// A model, as far as it is known before its weights are loaded: its name in requests, and its manifest.
struct NamedManifest {
  std::string name;
  const ModelManifest* manifest = nullptr;  // Must outlive this object.
};

// The models of a server by name. Immutable while the server runs.
class ModelRegistry {
 public:
  // Adds a model. Errors: INVALID_ARGUMENT if the name is taken.
  absl::Status Add(std::unique_ptr<ServedModel> model);

  // Finds a model by name; an empty name finds the only model. `field` is the request's field that has the name.
  // Errors: NOT_FOUND, INVALID_ARGUMENT.
  absl::StatusOr<ServedModel*> Find(std::string_view name, std::string_view field) const;

  const std::vector<std::unique_ptr<ServedModel>>& models() const { return models_; }
  // The names and manifests of models(), in the same order.
  std::span<const NamedManifest> manifests() const { return manifests_; }

 private:
  std::vector<std::string> Names() const;

  std::vector<std::unique_ptr<ServedModel>> models_;
  std::vector<NamedManifest> manifests_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_CORE_MODEL_REGISTRY_H_
