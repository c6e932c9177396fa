#include "server/core/model_registry.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/errors/errors.h"

namespace longembed {

absl::Status ModelRegistry::Add(std::unique_ptr<ServedModel> model) {
  for (const auto& present : models_) {
    if (present->name() == model->name()) {
      return absl::InvalidArgumentError(
          absl::StrCat("two models are named ", model->name(), "; give one of them another name in the config"));
    }
  }
  manifests_.push_back({.name = model->name(), .manifest = &model->model().manifest});
  models_.push_back(std::move(model));
  return absl::OkStatus();
}

absl::StatusOr<ServedModel*> ModelRegistry::Find(std::string_view name, std::string_view field) const {
  if (name.empty()) {
    if (models_.size() == 1) return models_.front().get();
    return ModelNotNamed(field, Names());
  }
  for (const auto& model : models_) {
    if (model->name() == name) return model.get();
  }
  return UnknownModel(field, name, Names());
}

std::vector<std::string> ModelRegistry::Names() const {
  std::vector<std::string> names;
  for (const auto& model : models_) names.push_back(model->name());
  return names;
}

}  // namespace longembed
