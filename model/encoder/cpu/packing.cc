#include "model/encoder/cpu/packing.h"

#include <algorithm>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "model/encoder/cpu/division.h"

namespace longembed::cpu {
namespace {

// A task that packs some panels of one layer's weights.
struct PackingTask {
  PackedWeights* weights = nullptr;
  Range panels;
};

// Allocates the panels of a segment's weights, and divides their packing into tasks.
std::vector<PackingTask> PackingTasks(Segment& segment) {
  constexpr int kTaskBytes = 4 << 20;  // Bytes of packed weights per task, which take some milliseconds.
  std::vector<PackingTask> tasks;
  ForWeights(segment, [&tasks](PackedWeights& weights) {
    AllocatePanels(weights);
    const int max_panels = std::max(1, kTaskBytes / (weights.steps * kStepBytes * weights.kernels->panel_outputs));
    for (const Range panels : Chunks({0, weights.panel_count()}, max_panels)) tasks.push_back({&weights, panels});
  });
  return tasks;
}

absl::Status Pack(const PackingTask& task) {
  const PackedWeights& weights = *task.weights;
  const int broken = PackPanels(*task.weights, task.panels.start, task.panels.end);
  if (broken < 0) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("a weight of output ", broken, " of a linear layer [", weights.outputs, ", ",
                                          weights.inputs, "] is not finite"));
}

// Runs tasks on the leader's threads. Returns the error of the first task that fails.
absl::Status PackTogether(Team::Leader& leader, const std::vector<PackingTask>& tasks,
                          const std::function<void(double)>& on_progress) {
  std::mutex mutex;
  int done = 0;
  absl::Status first;
  leader.ParallelFor(static_cast<int>(tasks.size()), [&](int i) {
    const absl::Status status = Pack(tasks[i]);
    const std::lock_guard lock(mutex);
    first.Update(status);
    ++done;
    if (on_progress) on_progress(static_cast<double>(done) / static_cast<double>(tasks.size()));
  });
  return first;
}

}  // namespace

absl::Status PackAll(Schedule& schedule, const PackingOptions& options) {
  std::vector<PackingTask> tasks;
  for (Segment& segment : schedule.segments) {
    for (const PackingTask& task : PackingTasks(segment)) tasks.push_back(task);
  }
  Team team;
  const HelperThreads helpers(team, options.threads - 1);
  Team::Leader leader(team);
  const absl::Status status = PackTogether(leader, tasks, options.on_progress);
  for (Segment& segment : schedule.segments) {
    ForWeights(segment, [](PackedWeights& weights) { weights.source = {}; });
  }
  return status;
}

absl::Status PackSegment(Segment& segment, Team::Leader& leader) {
  return PackTogether(leader, PackingTasks(segment), nullptr);
}

}  // namespace longembed::cpu
