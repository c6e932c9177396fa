// The server's process: reads the config, loads the models, serves, and ends in order on SIGTERM or SIGINT.
#include <algorithm>
#include <csignal>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "model/embed/precision_check.h"
#include "model/encoder/load_encoder.h"
#include "model/plan/planner.h"
#include "server/batching/clock.h"
#include "server/batching/scheduler.h"
#include "server/config/config.h"
#include "server/core/cores.h"
#include "server/core/served_model.h"
#include "server/core/worker_pool.h"
#include "server/rpc/converters.h"
#include "server/rpc/grpc_server.h"
#include "server/telemetry/metrics.h"

namespace longembed {
namespace {

constexpr char kUsage[] =
    "usage: longembed-server --config FILE\n"
    "  FILE is YAML; deploy/config.yaml shows every key with its default.\n"
    "  --version prints the version.\n";

void Log(std::string_view line) {
  std::cerr << absl::FormatTime(absl::Now(), absl::UTCTimeZone()) << "  " << line << std::endl;
}

// One scheduler a device: its models share the device's workers.
class Schedulers {
 public:
  Schedulers(const ServerConfig& config, const Clock& clock)
      : compute_threads_(config.compute_threads > 0 ? config.compute_threads : AvailableCores()),
        cuda_streams_(config.cuda_streams),
        clock_(clock) {}

  Scheduler& ForDevice(const std::string& device) {
    std::unique_ptr<Scheduler>& scheduler = by_device_[device];
    if (scheduler == nullptr) {
      // Parallelism comes from the workers and their helping each other: LibTorch's own threads would fight with them.
      scheduler =
          std::make_unique<Scheduler>(SchedulerOptions{.workers = device == "cpu" ? compute_threads_ : cuda_streams_,
                                                       .initialize_worker = [] { SetTorchThreads(1); }},
                                      clock_);
    }
    return *scheduler;
  }

 private:
  const int compute_threads_;
  const int cuda_streams_;
  const Clock& clock_;
  std::map<std::string, std::unique_ptr<Scheduler>> by_device_;
};

LaneOptions ToLaneOptions(const ModelConfig& config, const ModelManifest& manifest) {
  constexpr int64_t kCpuBatchTokens = 512, kCudaBatchTokens = 16384;
  constexpr int64_t kGiant = 8;  // Batches' worth.
  const int64_t standard = config.device == "cpu" ? kCpuBatchTokens : kCudaBatchTokens;
  const int64_t batch_tokens = config.max_batch_tokens > 0 ? config.max_batch_tokens : standard;
  return {.batch = {.max_tokens = batch_tokens, .max_sequences = static_cast<size_t>(config.max_batch_sequences)},
          .costs = {.attention = AttentionShare(manifest), .giant = kGiant * batch_tokens},
          .max_queued_tokens = config.max_queued_tokens};
}

// For a precision other than float32: how far it moves vectors, against the same kernels in float32.
absl::Status CheckPrecision(const ModelConfig& config, ServedModel& served) {
  if (config.precision == Precision::kFloat32) return absl::OkStatus();
  absl::StatusOr<std::unique_ptr<Encoder>> reference =
      LoadEncoder(config.path, served.model().manifest, {.device = config.device, .engine = config.engine});
  if (!reference.ok()) return reference.status();
  const absl::StatusOr<PrecisionReport> report = ComparePrecision(served.model(), **reference, served.encoder());
  if (!report.ok()) return report.status();
  served.set_precision_report(*report);
  Log(absl::StrFormat("model %s: %s against fp32 over %d texts: cosine at least %.5f, mean %.5f", served.name(),
                      PrecisionName(config.precision), report->texts, report->lowest_cosine, report->mean_cosine));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<ServedModel>> LoadServedModel(const ModelConfig& config, Schedulers& schedulers,
                                                             Metrics& metrics) {
  const absl::Time started = absl::Now();
  absl::StatusOr<std::unique_ptr<const Model>> model = LoadModel(config.path);
  if (!model.ok()) return model.status();
  const ModelManifest& manifest = (*model)->manifest;
  if (const auto extension = RecommendedExtension(manifest); !extension.ok()) return extension.status();
  const std::string name = config.name.empty() ? manifest.name : config.name;
  absl::StatusOr<std::unique_ptr<Encoder>> encoder =
      LoadEncoder(config.path, manifest,
                  {.device = config.device,
                   .precision = config.precision,
                   .engine = config.engine,
                   .on_fallback = [&name](const std::string& why) {
                     Log(absl::StrCat("model ", name, " runs with LibTorch, slower than with our kernels: ", why));
                   }});
  if (!encoder.ok()) return encoder.status();
  const LaneOptions options = ToLaneOptions(config, manifest);
  Scheduler& scheduler = schedulers.ForDevice((*encoder)->device());
  auto served =
      std::make_unique<ServedModel>(name, *std::move(model), *std::move(encoder), scheduler, options, metrics);
  if (const absl::Status status = served->WarmUp(); !status.ok()) return status;
  if (const absl::Status status = CheckPrecision(config, *served); !status.ok()) return status;
  Log(absl::StrCat("model ", name, " in ", PrecisionName(config.precision), " on ", served->encoder().device(),
                   ", engine ", served->encoder().engine(), ", ", scheduler.workers(), " workers, batches of ",
                   options.batch.max_tokens, " tokens, ready after ",
                   absl::FormatDuration(absl::Trunc(absl::Now() - started, absl::Milliseconds(1)))));
  return served;
}

absl::Status LoadModels(const ServerConfig& config, Schedulers& schedulers, Metrics& metrics, ModelRegistry& models) {
  for (const ModelConfig& model_config : config.models) {
    absl::StatusOr<std::unique_ptr<ServedModel>> model = LoadServedModel(model_config, schedulers, metrics);
    if (!model.ok()) return model.status();
    if (const absl::Status status = models.Add(*std::move(model)); !status.ok()) return status;
  }
  return absl::OkStatus();
}

void Drain(const ServerConfig& config, GrpcServer& server) {
  server.SetServing(false);
  absl::SleepFor(config.drain_delay);
  server.Shutdown(config.drain_timeout);
}

absl::Status Serve(const ServerConfig& config, const sigset_t& stop_signals) {
  const RealClock clock;
  Metrics metrics({.version = LONGEMBED_VERSION, .torch = TorchVersion()});
  const absl::StatusOr<Profiles> profiles = ParseProfiles(config.profiles);
  if (!profiles.ok()) return profiles.status();
  Schedulers schedulers(config, clock);
  ModelRegistry models;
  if (const absl::Status status = LoadModels(config, schedulers, metrics, models); !status.ok()) return status;
  std::vector<const ModelManifest*> manifests;
  for (const auto& model : models.models()) manifests.push_back(&model->model().manifest);
  if (const absl::Status status = CheckProfiles(*profiles, manifests); !status.ok()) return status;
  // Before the pool, so that the pool's last tasks still find what they answer to.
  absl::StatusOr<std::unique_ptr<GrpcServer>> server = absl::UnavailableError("not started");
  const int threads = config.tokenization_threads > 0 ? config.tokenization_threads : std::max(1, AvailableCores() / 2);
  WorkerPool pool(threads);
  server = GrpcServer::Start(config, {.models = models,
                                      .pool = pool,
                                      .clock = clock,
                                      .metrics = metrics,
                                      .limits = config.limits,
                                      .profiles = *profiles});
  if (!server.ok()) return server.status();
  if (!config.metrics_listen.empty()) {
    const absl::StatusOr<int> port = metrics.Listen(config.metrics_listen);
    if (!port.ok()) return port.status();
    Log(absl::StrCat("metrics on port ", *port, ", GET /metrics"));
  }
  (*server)->SetServing(true);
  Log(absl::StrCat("serving gRPC on port ", (*server)->port(), " (", config.listen, "), ",
                   (*server)->has_tei() ? "longembed.v1 and tei.v1" : "longembed.v1 (tei.v1 needs tei.model)"));

  int signal = 0;
  sigwait(&stop_signals, &signal);
  Log(absl::StrCat("signal ", signal, ": draining"));
  Drain(config, **server);
  metrics.ForgetQueues();
  Log("drained");
  return absl::OkStatus();
}

// The config's path, or an exit status.
std::variant<std::string, int> ParseArguments(int argc, char** argv) {
  const std::string_view first = argc > 1 ? argv[1] : "";
  if (argc == 2 && first == "--version") {
    std::cout << "longembed-server " << LONGEMBED_VERSION << " (LibTorch " << TorchVersion() << ")\n";
    return 0;
  }
  if (argc == 2 && (first == "--help" || first == "-h")) {
    std::cout << kUsage;
    return 0;
  }
  if (argc == 3 && first == "--config") return std::string(argv[2]);
  std::cerr << kUsage;
  return 2;
}

int Main(int argc, char** argv) {
  const auto arguments = ParseArguments(argc, argv);
  if (const int* exit_status = std::get_if<int>(&arguments)) return *exit_status;
  const absl::StatusOr<ServerConfig> config = ReadConfig(std::get<std::string>(arguments));
  if (!config.ok()) {
    std::cerr << "longembed-server: " << config.status().message() << "\n";
    return 2;
  }
  // Blocked before the first thread starts, so that every thread inherits it and sigwait alone sees them.
  sigset_t stop_signals;
  sigemptyset(&stop_signals);
  sigaddset(&stop_signals, SIGTERM);
  sigaddset(&stop_signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &stop_signals, nullptr);
  const absl::Status status = Serve(*config, stop_signals);
  if (status.ok()) return 0;
  std::cerr << "longembed-server: " << status.message() << "\n";
  return 1;
}

}  // namespace
}  // namespace longembed

int main(int argc, char** argv) { return longembed::Main(argc, argv); }
