#include "server/process/load_progress.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/telemetry/log.h"

namespace longembed {
namespace {

struct StageInfo {
  const char* words;
  double begins;  // Fraction of the whole at the stage's begin, measured with a model of 7 B weights.
};

constexpr StageInfo kStages[] = {{"verifying files", 0.0},
                                 {"computing sample vectors in fp32", 0.3},
                                 {"packing weights", 0.6},
                                 {"measuring the precision", 0.9},
                                 {"ready", 1.0}};

}  // namespace

LoadProgress::LoadProgress(std::string model, Metrics& metrics, Health& health, const Clock& clock,
                           absl::Duration log_interval)
    : model_(std::move(model)),
      metrics_(metrics),
      health_(health),
      clock_(clock),
      log_interval_(log_interval),
      logged_(clock.Now()) {}

std::function<void(double)> LoadProgress::Begin(LoadStage stage) {
  Report(stage, 0);
  return [this, stage](double share) { Report(stage, share); };
}

void LoadProgress::Report(LoadStage stage, double share) {
  const auto number = static_cast<size_t>(stage);
  const double begins = kStages[number].begins;
  const double ratio = stage == LoadStage::kReady ? 1 : begins + share * (kStages[number + 1].begins - begins);
  const auto percent = static_cast<int>(100 * ratio);
  const MutexLock lock(mutex_);
  if (percent == reported_percent_ && stage == reported_stage_) return;
  reported_percent_ = percent;
  reported_stage_ = stage;
  metrics_.SetLoadRatio(model_, ratio);
  health_.SetLoading(stage == LoadStage::kReady ? "" : absl::StrCat(percent, "%, ", kStages[number].words));
  if (stage == LoadStage::kReady || clock_.Now() - logged_ < log_interval_) return;
  logged_ = clock_.Now();
  Log(LogLevel::kInfo, "loading a model",
      {{"model", model_}, {"stage", kStages[number].words}, {"percent", int64_t{percent}}});
}

}  // namespace longembed
