// The server's process: reads the config, loads the models, serves, and ends in order on SIGTERM or SIGINT.
#include <algorithm>
#include <csignal>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "model/encoder/load_encoder.h"
#include "server/admission/ledger.h"
#include "server/api/apis.h"
#include "server/batching/clock.h"
#include "server/config/config.h"
#include "server/core/cores.h"
#include "server/core/served_model.h"
#include "server/core/worker_pool.h"
#include "server/files/watched_files.h"
#include "server/process/health_monitor.h"
#include "server/process/load_models.h"
#include "server/process/secrets.h"
#include "server/rpc/grpc_server.h"
#include "server/rpc/health.h"
#include "server/telemetry/log.h"
#include "server/telemetry/metrics.h"

// jemalloc's settings, which it finds by this name: a thread of its own gives freed memory back to the system, also
// where the threads that freed it have come to rest.
extern "C" {
const char* malloc_conf = "background_thread:true";
}

namespace longembed {
namespace {

constexpr char kUsage[] =
    "usage: longembed-server --config FILE\n"
    "  FILE is YAML; deploy/config.yaml shows every key with its default.\n"
    "  --version prints the version.\n";

// SIGTERM and SIGINT.
class StopSignals {
 public:
  // Blocks them. Before the first thread starts: every thread inherits it, and nobody sees them but who asks here.
  StopSignals() {
    sigemptyset(&set_);
    sigaddset(&set_, SIGTERM);
    sigaddset(&set_, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set_, nullptr);
  }

  // Whether one has come that nobody has taken. Any thread.
  bool Pending() const {
    sigset_t pending;
    sigpending(&pending);
    return sigismember(&pending, SIGTERM) == 1 || sigismember(&pending, SIGINT) == 1;
  }

  // Takes one that is there, or comes within `patience`; 0: there was none.
  int Take(absl::Duration patience) const {
    const timespec longest = absl::ToTimespec(patience);
    return std::max(0, sigtimedwait(&set_, nullptr, &longest));
  }

 private:
  sigset_t set_;
};

// Those that are loaded when a signal comes are all there will be.
absl::Status LoadModels(const ServerConfig& config, const StopSignals& signals, Devices& devices, Metrics& metrics,
                        ModelRegistry& models) {
  for (const ModelConfig& model_config : config.models) {
    if (signals.Pending()) return absl::OkStatus();
    absl::StatusOr<std::unique_ptr<ServedModel>> model = LoadServedModel(model_config, devices, metrics);
    if (!model.ok()) return model.status();
    metrics.SetQueueWaitLimit((*model)->name(), config.limits.max_queue_wait);
    if (const absl::Status status = models.Add(*std::move(model)); !status.ok()) return status;
  }
  return absl::OkStatus();
}

// What opens before models load, so that the kubelet and Prometheus see a server that starts.
struct Ports {
  std::unique_ptr<HealthPort> health;  // Null: not wanted.

  absl::Status Open(const ServerConfig& config, Metrics& metrics, Health& state, const HostContext& host) {
    if (!config.health_listen.empty()) {
      absl::StatusOr<std::unique_ptr<HealthPort>> port = HealthPort::Start(config.health_listen, state, host);
      if (!port.ok()) return port.status();
      health = *std::move(port);
      Log(LogLevel::kInfo, absl::StrCat("health on port ", health->port()));
    }
    if (!config.metrics_listen.empty()) {
      const absl::StatusOr<int> port = metrics.Listen(config.metrics_listen);
      if (!port.ok()) return port.status();
      Log(LogLevel::kInfo, absl::StrCat("metrics on port ", *port));
    }
    return absl::OkStatus();
  }
};

// The one key of the config that may change while the server runs.
class LogLevelFile {
 public:
  explicit LogLevelFile(const std::string& config_path) : path_(config_path), file_({config_path}, absl::Seconds(1)) {
    file_.Changed(absl::Now());
  }

  void Look() {
    if (!file_.Changed(absl::Now())) return;
    const absl::StatusOr<ServerConfig> config = ReadConfig(path_);
    if (!config.ok()) {
      return Log(LogLevel::kWarning, "the config changed, but is no good; log.level stays what it was",
                 {{"why", std::string(config.status().message())}});
    }
    // One of the two levels may silence it.
    const bool said = Say();
    SetLogLevel(config->log.level);
    if (!said) Say();
  }

 private:
  // Whether it was heard.
  static bool Say() {
    Log(LogLevel::kInfo, "the config changed: its log.level is in force, everything else after a restart");
    return LogEnabled(LogLevel::kInfo);
  }

  const std::string path_;
  WatchedFiles file_;
};

// Until a signal comes; looks after files and models meanwhile.
int AwaitSignal(const StopSignals& signals, Secrets& secrets, HealthMonitor& monitor, LogLevelFile& log_level) {
  while (true) {
    if (const int signal = signals.Take(absl::Seconds(1)); signal > 0) return signal;
    log_level.Look();
    secrets.Look();
    monitor.CheckModels();
  }
}

// A second signal cuts it short.
void Drain(const ServerConfig& config, const StopSignals& signals, HealthMonitor& monitor, GrpcServer& server) {
  monitor.SetServing(false);
  bool hurry = signals.Take(config.drain_delay) > 0;
  server.Shutdown(config.drain_timeout, [&signals, &hurry] { return hurry = hurry || signals.Pending(); });
  Log(LogLevel::kInfo, hurry ? "drained in a hurry, after a second signal" : "drained");
}

absl::Status CheckAllProfiles(const Profiles& profiles, const ModelRegistry& models) {
  std::vector<const ModelManifest*> manifests;
  for (const auto& model : models.models()) manifests.push_back(&model->model().manifest);
  return CheckProfiles(profiles, manifests);
}

void LogServing(const ServerConfig& config, const GrpcServer& server, bool has_tei) {
  Log(LogLevel::kInfo, absl::StrCat("serving gRPC on port ", server.port()),
      {{"listen", config.listen},
       {"tls", config.tls.enabled() ? (config.tls.client_ca.empty() ? "on" : "mutual") : "off"},
       {"apis", has_tei ? "longembed.v1 and tei.v1" : "longembed.v1 (tei.v1 needs tei.model)"}});
}

absl::Status Serve(const ServerConfig& config, const std::string& config_path, const StopSignals& signals) {
  const RealClock clock;
  Metrics metrics({.version = LONGEMBED_VERSION, .torch = TorchVersion()});
  Ports ports;
  Ledger ledger(config.limits.max_pending_bytes);
  const Registration held_reading = metrics.ReadHeldBytes([&ledger] { return ledger.held(); });
  Health health({v1::EmbeddingService::service_full_name()});
  OpenStreams streams;
  HostContext host{.clock = clock,
                   .metrics = metrics,
                   .ledger = ledger,
                   .max_request_bytes = config.limits.max_request_bytes,
                   .max_response_bytes = config.limits.max_response_bytes,
                   .streams = &streams,
                   .max_stream_age = config.connections.max_age > absl::ZeroDuration() ? config.connections.max_age
                                                                                       : absl::InfiniteDuration()};
  if (const absl::Status status = ports.Open(config, metrics, health, host); !status.ok()) return status;
  Secrets secrets;
  if (const absl::Status status = secrets.Open(config, metrics); !status.ok()) return status;
  const absl::StatusOr<Profiles> profiles = ParseProfiles(config.profiles);
  if (!profiles.ok()) return profiles.status();
  Devices devices(config, clock);
  ModelRegistry models;
  if (const absl::Status status = LoadModels(config, signals, devices, metrics, models); !status.ok()) return status;
  if (signals.Pending()) {
    Log(LogLevel::kInfo, "stopped before it served");
    return absl::OkStatus();
  }
  if (const absl::Status status = CheckAllProfiles(*profiles, models); !status.ok()) return status;
  host.api_keys = secrets.api_keys.get();
  // In the order in which they outlive each other: the pool's last tasks still find what they answer to.
  std::unique_ptr<Apis> apis;
  std::unique_ptr<GrpcServer> server;
  // Three at least: one for short texts, and one each for long texts of two clients.
  WorkerPool pool(config.tokenization_threads > 0 ? config.tokenization_threads : std::max(3, AvailableCores() / 2),
                  clock, config.limits.max_queue_wait);
  absl::StatusOr<std::unique_ptr<Apis>> made = Apis::Make(
      config.tei, {.models = models, .pool = pool, .clock = clock, .limits = config.limits}, *profiles, host);
  if (!made.ok()) return made.status();
  apis = *std::move(made);
  health.Add(apis->names());
  server = std::make_unique<GrpcServer>(config, host);
  if (const absl::Status status = server->Start(apis->services(), health, secrets.certificates.get()); !status.ok()) {
    return status;
  }
  HealthMonitor monitor(health, models, metrics);
  monitor.SetServing(true);
  LogServing(config, *server, apis->has_tei());
  LogLevelFile log_level(config_path);
  const int signal = AwaitSignal(signals, secrets, monitor, log_level);
  Log(LogLevel::kInfo, "draining", {{"signal", int64_t{signal}}});
  Drain(config, signals, monitor, *server);
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
  const auto& config_path = std::get<std::string>(arguments);
  const absl::StatusOr<ServerConfig> config = ReadConfig(config_path);
  if (!config.ok()) {
    std::cerr << "longembed-server: " << config.status().message() << "\n";
    return 2;
  }
  BoundTorchCaches();
  const StopSignals signals;
  // A peer that has hung up, or whoever read the log, is an error where it is written to.
  std::signal(SIGPIPE, SIG_IGN);
  SetLogLevel(config->log.level);
  SetLogFormat(config->log.format);
  const absl::Status status = Serve(*config, config_path, signals);
  if (status.ok()) return 0;
  std::cerr << "longembed-server: " << status.message() << "\n";
  return 1;
}

}  // namespace
}  // namespace longembed

int main(int argc, char** argv) { return longembed::Main(argc, argv); }
