#include "server/process/load_models.h"

#include <chrono>
#include <utility>

#include "model/embed/precision_check.h"
#include "model/encoder/load_encoder.h"
#include "model/plan/cost.h"
#include "model/plan/recommendations.h"
#include "server/core/warm_up.h"
#include "server/process/load_progress.h"
#include "server/process/start_checks.h"
#include "server/telemetry/log.h"
#include "system/cores.h"
#include "system/return_if_error.h"

namespace longembed {
namespace {

LaneOptions ToLaneOptions(const ModelConfig& config, const ModelManifest& manifest, int workers) {
  constexpr int64_t kCpuBatchTokens = 512, kCudaBatchTokens = 16384;
  // A sequence is oversized if it costs more than this many batches of the standard size. The configured size does not
  // count, because a sequence delays others by the same time even if batches are larger.
  constexpr int64_t kOversized = 8;
  const int64_t standard = config.device == "cpu" ? kCpuBatchTokens : kCudaBatchTokens;
  LaneOptions options{.batch = {.max_tokens = config.max_batch_tokens > 0 ? config.max_batch_tokens : standard,
                                .max_sequences = static_cast<size_t>(config.max_batch_sequences)},
                      .costs = {.attention = AttentionShare(manifest), .layers = manifest.layers}};
  if (workers > 1)
    options.costs.oversized = kOversized * standard;  // With a single worker, nothing else could run anyway.
  return options;
}

// Returns the reference for CheckPrecision: vectors of the same kernels in float32, with one layer in memory at a time.
// Returns an empty result if the model runs in float32.
absl::StatusOr<SampleVectors> ReferenceVectors(const ModelConfig& config, const std::string& cpu_kernels,
                                               const Model& model, std::function<void(double)> on_progress) {
  if (config.precision == Precision::kFloat32) return SampleVectors{};
  const absl::StatusOr<std::unique_ptr<Encoder>> reference = LoadEncoder(config.path, model.manifest,
                                                                         {.device = config.device,
                                                                          .engine = config.engine,
                                                                          .kernels = cpu_kernels,
                                                                          .streamed = true,
                                                                          .on_progress = std::move(on_progress)});
  if (!reference.ok()) return reference.status();
  return EmbedSample(model, **reference, AvailableCores());
}

// Measures how much a precision other than float32 changes vectors.
absl::Status CheckPrecision(const ModelConfig& config, const SampleVectors& expected, ServedModel& served) {
  if (expected.empty()) return absl::OkStatus();
  const absl::StatusOr<SampleVectors> actual = EmbedSample(served.model(), served.encoder(), AvailableCores());
  if (!actual.ok()) return actual.status();
  const PrecisionReport report = ComparePrecision(expected, *actual);
  served.set_precision_report(report);
  Log(LogLevel::kInfo, "precision checked against fp32",
      {{"model", served.name()},
       {"precision", PrecisionName(config.precision)},
       {"texts", int64_t{report.texts}},
       {"lowest_cosine", report.lowest_cosine},
       {"mean_cosine", report.mean_cosine}});
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Encoder>> LoadServedEncoder(const ModelConfig& config, const std::string& cpu_kernels,
                                                           const ModelManifest& manifest, const std::string& name,
                                                           std::function<void(double)> on_progress) {
  return LoadEncoder(config.path, manifest,
                     {.device = config.device,
                      .precision = config.precision,
                      .engine = config.engine,
                      .kernels = cpu_kernels,
                      .threads = AvailableCores(),
                      .on_progress = std::move(on_progress),
                      .on_fallback = [&name](const std::string& what, const std::string& why) {
                        Log(LogLevel::kWarning, what, {{"model", name}, {"why", why}});
                      }});
}

void LogReady(const ModelConfig& config, const Device& device, const ServedModel& served,
              std::chrono::steady_clock::time_point started) {
  Log(LogLevel::kInfo, "model ready",
      {{"model", served.name()},
       {"precision", PrecisionName(config.precision)},
       {"device", served.encoder().device()},
       {"engine", served.encoder().engine()},
       {"kernels", served.encoder().kernels()},
       {"workers", int64_t{device.scheduler.workers()}},
       {"max_batch_tokens", served.lane_options().batch.max_tokens},
       {"seconds", std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count()}});
}

}  // namespace

Devices::Devices(const ServerConfig& config, const Clock& clock)
    : cpu_kernels_(config.cpu_kernels),
      compute_threads_(ComputeThreads(config, AvailableCores())),
      cuda_streams_(config.cuda_streams),
      admission_{.max_wait = config.limits.max_queue_wait,
                 .max_bulk_wait = config.limits.max_bulk_queue_wait,
                 .reject_fraction = 0.75},
      clock_(clock) {}

Device Devices::ForDevice(const std::string& device) {
  std::unique_ptr<Owned>& owned = by_device_[device];
  if (owned == nullptr) {
    // Workers and their helpers run in parallel, so LibTorch's own threads would only compete with them.
    const SchedulerOptions options{.workers = device == "cpu" ? compute_threads_ : cuda_streams_,
                                   .initialize_worker = [] { SetTorchThreads(1); }};
    owned = std::make_unique<Owned>(admission_, options, clock_);
  }
  return {.scheduler = owned->scheduler, .admission = owned->admission};
}

absl::StatusOr<std::unique_ptr<ServedModel>> LoadServedModel(const ModelConfig& config, Devices& devices,
                                                             Metrics& metrics, Health& health) {
  const auto started = std::chrono::steady_clock::now();
  const absl::StatusOr<ModelManifest> read = ReadManifest(config.path);
  if (!read.ok()) return read.status();
  const std::string name = config.name.empty() ? read->name : config.name;
  LoadProgress progress(name, metrics, health, devices.clock());
  absl::StatusOr<std::unique_ptr<const Model>> model =
      LoadModel(config.path, progress.Begin(LoadStage::kVerifyingFiles));
  if (!model.ok()) return model.status();
  const ModelManifest& manifest = (*model)->manifest;
  if (const auto recommended = RecommendationsOf(manifest); !recommended.ok()) return recommended.status();
  // Runs before the served encoder is loaded, so that memory for both is not required.
  const absl::StatusOr<SampleVectors> reference =
      ReferenceVectors(config, devices.cpu_kernels(), **model, progress.Begin(LoadStage::kMeasuringFloat32));
  if (!reference.ok()) return reference.status();
  absl::StatusOr<std::unique_ptr<Encoder>> encoder =
      LoadServedEncoder(config, devices.cpu_kernels(), manifest, name, progress.Begin(LoadStage::kPackingWeights));
  if (!encoder.ok()) return encoder.status();
  const Device device = devices.ForDevice((*encoder)->device());
  const ServedModelOptions options{.lane = ToLaneOptions(config, manifest, device.scheduler.workers()),
                                   .max_queued_tokens = config.max_queued_tokens};
  auto served = std::make_unique<ServedModel>(name, *std::move(model), *std::move(encoder), device, options, metrics);
  progress.Begin(LoadStage::kMeasuringPrecision);
  RETURN_IF_ERROR(WarmUp(*served));
  RETURN_IF_ERROR(CheckPrecision(config, *reference, *served));
  progress.Begin(LoadStage::kReady);
  LogReady(config, device, *served, started);
  return served;
}

}  // namespace longembed
