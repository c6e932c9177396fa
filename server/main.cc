// The server's process: reads the config, loads the models, serves, and ends in order on SIGTERM or SIGINT.
#include <algorithm>
#include <csignal>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "model/encoder/torch_encoder.h"
#include "server/batching/clock.h"
#include "server/config/config.h"
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

int Cores() { return static_cast<int>(std::max(1u, std::thread::hardware_concurrency())); }

SchedulerOptions ToSchedulerOptions(const ModelConfig& config) {
  const int threads = config.intra_op_threads > 0 ? config.intra_op_threads : std::max(1, Cores() / config.workers);
  return {.workers = config.workers,
          .batch = {.max_tokens = config.max_batch_tokens,
                    .max_sequences = static_cast<size_t>(config.max_batch_sequences)},
          .max_queued_tokens = config.max_queued_tokens,
          .initialize_worker = [threads] { SetIntraOpThreads(threads); }};
}

absl::StatusOr<std::unique_ptr<ServedModel>> LoadServedModel(const ModelConfig& config, const Clock& clock,
                                                             Metrics& metrics) {
  const absl::Time started = absl::Now();
  absl::StatusOr<std::unique_ptr<const Model>> model = LoadModel(config.path);
  if (!model.ok()) return model.status();
  const ModelManifest& manifest = (*model)->manifest;
  if (const auto extension = RecommendedExtension(manifest); !extension.ok()) return extension.status();
  absl::StatusOr<std::unique_ptr<Encoder>> encoder = LoadTorchEncoder(config.path, manifest, {.device = config.device});
  if (!encoder.ok()) return encoder.status();
  const std::string name = config.name.empty() ? manifest.name : config.name;
  auto served = std::make_unique<ServedModel>(name, *std::move(model), *std::move(encoder), ToSchedulerOptions(config),
                                              clock, metrics);
  if (const absl::Status status = served->WarmUp(); !status.ok()) return status;
  Log(absl::StrCat("model ", name, " on ", served->encoder().device(), ", ready after ",
                   absl::FormatDuration(absl::Trunc(absl::Now() - started, absl::Milliseconds(1)))));
  return served;
}

absl::Status LoadModels(const ServerConfig& config, const Clock& clock, Metrics& metrics, ModelRegistry& models) {
  for (const ModelConfig& model_config : config.models) {
    absl::StatusOr<std::unique_ptr<ServedModel>> model = LoadServedModel(model_config, clock, metrics);
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
  ModelRegistry models;
  if (const absl::Status status = LoadModels(config, clock, metrics, models); !status.ok()) return status;
  std::vector<const ModelManifest*> manifests;
  for (const auto& model : models.models()) manifests.push_back(&model->model().manifest);
  if (const absl::Status status = CheckProfiles(*profiles, manifests); !status.ok()) return status;
  const int threads = config.tokenization_threads > 0 ? config.tokenization_threads : std::max(1, Cores() / 2);
  WorkerPool pool(threads);
  absl::StatusOr<std::unique_ptr<GrpcServer>> server = GrpcServer::Start(config, {.models = models,
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
  Log(absl::StrCat("serving gRPC on port ", (*server)->port(), " (", config.listen, ")"));

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
