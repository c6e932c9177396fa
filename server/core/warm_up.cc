#include "server/core/warm_up.h"

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

#include "model/plan/planner.h"
#include "server/core/served_model.h"
#include "system/clock.h"
#include "system/return_if_error.h"

namespace longembed {
namespace {

absl::Status EncodeTwice(ServedModel& model, const Sequence& sequence) {
  Team team;
  Team::Leader leader(team);
  return model.encoder()
      .Encode(Pack(std::vector<const Sequence*>{&sequence, &sequence}), leader, [] { return false; })
      .status();
}

// Encodes a sequence of `tokens` tokens and the special ones twice, and seeds the lane's throughput with the time.
absl::Status MeasureTwice(ServedModel& model, int tokens) {
  const absl::StatusOr<Sequence> sequence = SampleSequence(model.model(), tokens);
  if (!sequence.ok()) return sequence.status();
  const RealClock clock;
  const absl::Time began = clock.Now();
  const absl::Status status = EncodeTwice(model, *sequence);
  // Without this the first calls would be admitted as if they took no work.
  model.lane().SeedThroughput(2 * model.lane_options().costs.CostOf(std::ssize(sequence->tokens)), clock.Now() - began);
  return status;
}

}  // namespace

absl::StatusOr<Sequence> SampleSequence(const Model& model, int tokens) {
  const ModelManifest& manifest = model.manifest;
  const std::vector<int32_t> content(tokens, manifest.vocabulary_size / 2);
  absl::StatusOr<Plan> plan = PlanInput(
      manifest, {.content = content},
      {.truncate = Truncate::kEnd, .sparse = manifest.sparse_head != SparseHeadKind::kNone}, *model.rotary_tables);
  if (!plan.ok()) return plan.status();
  return std::move(plan->sequences.front().sequence);
}

absl::Status WarmUp(ServedModel& model) {
  // TorchScript needs a profiling run, then an optimized one.
  const int rounds = model.encoder().engine() == "torchscript" ? 2 : 1;
  const int longest = std::min(model.model().manifest.plain_limit / 2, 256);
  for (int round = 0; round < rounds; ++round) {
    for (const int tokens : {1, 16}) {
      RETURN_IF_ERROR(MeasureTwice(model, tokens));
    }
    // With billions of weights the long sequences would take minutes.
    if (model.lane().WorkOf(model.lane_options().costs.CostOf(longest)) > absl::Seconds(5)) return absl::OkStatus();
    RETURN_IF_ERROR(MeasureTwice(model, longest));
  }
  return absl::OkStatus();
}

}  // namespace longembed
