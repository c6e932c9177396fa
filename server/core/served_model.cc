#include "server/core/served_model.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/embed/pipeline.h"
#include "server/errors/errors.h"

namespace longembed {

ServedModel::ServedModel(std::string name, std::unique_ptr<const Model> model, std::unique_ptr<Encoder> encoder,
                         Scheduler& scheduler, const LaneOptions& options, Metrics& metrics)
    : name_(std::move(name)), model_(std::move(model)), encoder_(std::move(encoder)) {
  metrics_ = &metrics.ForModel(name_, [this]() -> QueueReading {
    if (lane_ == nullptr) return {};
    const QueueState state = lane_->queue_state();
    return {.jobs = static_cast<int64_t>(state.jobs), .tokens = state.tokens, .oldest = state.oldest};
  });
  observer_.metrics = metrics_;
  lane_ = scheduler.AddLane(*encoder_, options, &observer_);
}

absl::Status ServedModel::WarmUp() {
  constexpr int kRounds = 2;  // TorchScript's profiling run, then the optimised one.
  const ModelManifest& manifest = model_->manifest;
  Team team;
  Team::Leader leader(team);
  for (int round = 0; round < kRounds; ++round) {
    for (const int tokens : {1, 16, std::min(manifest.plain_limit / 2, 256)}) {
      const std::vector<int32_t> content(tokens, manifest.vocabulary_size / 2);
      absl::StatusOr<Plan> plan =
          PlanInput(manifest, {.content = content}, {.truncate = Truncate::kEnd}, *model_->rotary_tables);
      if (!plan.ok()) return plan.status();
      const Sequence& sequence = plan->sequences.front().sequence;
      const absl::StatusOr<VectorBlock> block =
          encoder_->Encode(Pack(std::vector<const Sequence*>{&sequence, &sequence}), leader, [] { return false; });
      if (!block.ok()) return block.status();
    }
  }
  return absl::OkStatus();
}

absl::Status ModelRegistry::Add(std::unique_ptr<ServedModel> model) {
  for (const auto& present : models_) {
    if (present->name() == model->name()) {
      return absl::InvalidArgumentError(
          absl::StrCat("two models are named ", model->name(), "; give one of them another name in the config"));
    }
  }
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
