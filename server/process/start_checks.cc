#include "server/process/start_checks.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "server/telemetry/log.h"

namespace longembed {
namespace {

// Returns an upper estimate of the number of threads: those of the config, and those of gRPC, jemalloc, the ports, the
// log and the signals.
int64_t ExpectedThreads(const ServerConfig& config, int cores) {
  constexpr int64_t kOthers = 16, kOthersForEachCore = 4;
  int64_t threads = kOthers + kOthersForEachCore * cores + TokenizationThreads(config, cores);
  bool on_cpu = false;
  for (const ModelConfig& model : config.models) {
    on_cpu = on_cpu || model.device == "cpu";
    if (model.device != "cpu") threads += config.cuda_streams;
  }
  return on_cpu ? threads + ComputeThreads(config, cores) : threads;
}

absl::Status CheckDescriptors(const ServerConfig& config, int64_t descriptors) {
  constexpr int64_t kOthers = 256;  // For models, logs and the other ports.
  const int64_t ports = config.http_listen.empty() ? 1 : 2, needed = ports * config.connections.max + kOthers;
  if (descriptors >= needed) return absl::OkStatus();
  const int64_t most = (descriptors - kOthers) / ports;
  return absl::InvalidArgumentError(absl::StrCat(
      "connections.max is ", config.connections.max, ports > 1 ? " on each of listen and http_listen" : "",
      ", but this process may open ", descriptors, " descriptors; ",
      most > 0 ? absl::StrCat("lower it to ", most, ", or ") : "", "raise the limit (ulimit -n) to ", needed));
}

absl::Status CheckThreads(const ServerConfig& config, int cores, int64_t limit, const std::string& name) {
  const int64_t threads = ExpectedThreads(config, cores);
  if (threads <= limit) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("compute_threads, tokenization_threads and cuda_streams make about ",
                                                 threads, " threads with those of gRPC, but ", name, " allows ", limit,
                                                 "; lower them, or raise the limit"));
}

absl::Status CheckMemory(const ServerConfig& config, const CgroupLimit<int64_t>& memory) {
  if (config.limits.max_pending_bytes < memory.value) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("limits.max_pending_bytes is ", config.limits.max_pending_bytes, ", but ", memory.file, " allows ",
                   memory.value, " bytes for everything, models included; lower it, or raise the memory limit"));
}

}  // namespace

void Problems::Add(const absl::Status& status) {
  if (status.ok()) return;
  for (const auto line : absl::StrSplit(status.message(), '\n')) all_.emplace_back(line);
}

void Problems::Add(const std::string& key, const absl::Status& status) {
  if (!status.ok()) Add(absl::Status(status.code(), absl::StrCat(key, ": ", status.message())));
}

int ComputeThreads(const ServerConfig& config, int cores) {
  return config.compute_threads > 0 ? config.compute_threads : cores;
}

int TokenizationThreads(const ServerConfig& config, int cores) {
  // At least three: one for short texts, and one each for long texts of two clients.
  return config.tokenization_threads > 0 ? config.tokenization_threads : std::max(3, cores / 2);
}

void CheckHostLimits(const ServerConfig& config, const HostLimits& limits, Problems& problems) {
  const CgroupLimits& cgroup = limits.cgroup;
  problems.Add(CheckDescriptors(config, limits.descriptors));
  if (limits.user_threads.has_value()) {
    problems.Add(CheckThreads(config, limits.cores, *limits.user_threads, "the user's limit (ulimit -u)"));
  }
  if (cgroup.tasks.has_value()) {
    problems.Add(CheckThreads(config, limits.cores, cgroup.tasks->value, cgroup.tasks->file));
  }
  if (cgroup.memory_bytes.has_value()) problems.Add(CheckMemory(config, *cgroup.memory_bytes));
}

absl::Status CheckOpenAiPrompt(const HttpConfig& http, const std::vector<const ModelManifest*>& models) {
  const auto has_prompt = [&http](const ModelManifest* model) { return model->prompts.contains(http.openai_prompt); };
  if (http.openai_prompt.empty() || std::ranges::any_of(models, has_prompt)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("http.openai_prompt is \"", http.openai_prompt, "\", which is not a prompt of any model"));
}

void LogOverrides(const ServerConfig& config) {
  if (config.overrides.empty()) return;
  Log(LogLevel::kInfo, "config overridden by the environment", {{"variables", absl::StrJoin(config.overrides, ", ")}});
}

void LogHostLimits(const HostLimits& limits) {
  const auto number = [](const auto& limit) -> LogValue {
    return limit.has_value() ? LogValue(limit->value) : LogValue("unlimited");
  };
  Log(LogLevel::kInfo, "limits",
      {{"cores", int64_t{limits.cores}},
       {"cgroup_cores", number(limits.cgroup.cores)},
       {"cgroup_memory_bytes", number(limits.cgroup.memory_bytes)},
       {"cgroup_tasks", number(limits.cgroup.tasks)},
       {"descriptors", limits.descriptors},
       {"user_threads", limits.user_threads ? LogValue(*limits.user_threads) : LogValue("unlimited")}});
}

}  // namespace longembed
