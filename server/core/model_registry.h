// The models that a server serves.
#ifndef LONGEMBED_SERVER_CORE_MODEL_REGISTRY_H_
#define LONGEMBED_SERVER_CORE_MODEL_REGISTRY_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/core/served_model.h"

namespace longembed {

// The models of a server by name. Immutable while the server runs.
class ModelRegistry {
 public:
  // Adds a model. Errors: INVALID_ARGUMENT if the name is taken.
  absl::Status Add(std::unique_ptr<ServedModel> model);

  // Finds a model by name; an empty name finds the only model. `field` is the request's field that has the name.
  // Errors: NOT_FOUND, INVALID_ARGUMENT.
  absl::StatusOr<ServedModel*> Find(std::string_view name, std::string_view field) const;

  const std::vector<std::unique_ptr<ServedModel>>& models() const { return models_; }

 private:
  std::vector<std::string> Names() const;

  std::vector<std::unique_ptr<ServedModel>> models_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_CORE_MODEL_REGISTRY_H_
