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
#include "absl/time/clock.h"
#include "model/embed/precision_check.h"
#include "model/encoder/load_encoder.h"
#include "model/plan/planner.h"
#include "server/admission/admission.h"
#include "server/admission/pending.h"
#include "server/batching/clock.h"
#include "server/batching/scheduler.h"
#include "server/config/config.h"
#include "server/core/cores.h"
#include "server/core/served_model.h"
#include "server/core/worker_pool.h"
#include "server/files/watched_files.h"
#include "server/rpc/converters.h"
#include "server/rpc/grpc_server.h"
#include "server/rpc/health.h"
#include "server/security/api_keys.h"
#include "server/security/certificates.h"
#include "server/telemetry/log.h"
#include "server/telemetry/metrics.h"

// jemalloc's settings, which it finds by this name: a thread of its own gives freed memory back to the system, also
// what threads freed that have come to rest.
extern "C" {
const char* malloc_conf = "background_thread:true";
}

namespace longembed {
namespace {

constexpr char kUsage[] =
    "usage: longembed-server --config FILE\n"
    "  FILE is YAML; deploy/config.yaml shows every key with its default.\n"
    "  --version prints the version.\n";

// One scheduler and one admission a device: its models share the device's workers.
class Devices {
 public:
  Devices(const ServerConfig& config, const Clock& clock)
      : compute_threads_(config.compute_threads > 0 ? config.compute_threads : AvailableCores()),
        cuda_streams_(config.cuda_streams),
        admission_{.max_wait = config.limits.max_queue_wait,
                   .max_bulk_wait = config.limits.max_bulk_queue_wait,
                   .refuse_at = 0.75},
        clock_(clock) {}

  Device ForDevice(const std::string& device) {
    std::unique_ptr<Owned>& owned = by_device_[device];
    if (owned == nullptr) {
      // Parallelism comes from the workers and their helping each other: LibTorch's own threads would fight with them.
      const SchedulerOptions options{.workers = device == "cpu" ? compute_threads_ : cuda_streams_,
                                     .initialize_worker = [] { SetTorchThreads(1); }};
      owned = std::make_unique<Owned>(admission_, options, clock_);
    }
    return {.scheduler = owned->scheduler, .admission = owned->admission};
  }

 private:
  struct Owned {
    Owned(const AdmissionOptions& admission_options, const SchedulerOptions& options, const Clock& clock)
        : admission(admission_options, clock), scheduler(options, clock) {}
    Admission admission;  // First: the scheduler's jobs give back what they hold of it.
    Scheduler scheduler;
  };

  const int compute_threads_;
  const int cuda_streams_;
  const AdmissionOptions admission_;
  const Clock& clock_;
  std::map<std::string, std::unique_ptr<Owned>> by_device_;
};

LaneOptions ToLaneOptions(const ModelConfig& config, const ModelManifest& manifest, int workers) {
  constexpr int64_t kCpuBatchTokens = 512, kCudaBatchTokens = 16384;
  // Batches' worth; of standard ones, as a sequence holds up others no less where batches are configured to be large.
  constexpr int64_t kGiant = 8;
  const int64_t standard = config.device == "cpu" ? kCpuBatchTokens : kCudaBatchTokens;
  LaneOptions options{.batch = {.max_tokens = config.max_batch_tokens > 0 ? config.max_batch_tokens : standard,
                                .max_sequences = static_cast<size_t>(config.max_batch_sequences)},
                      .costs = {.attention = AttentionShare(manifest)}};
  if (workers > 1) options.costs.giant = kGiant * standard;  // Else nobody could run beside one.
  return options;
}

// What CheckPrecision compares with: the same kernels' vectors in float32. Empty where that is the precision.
absl::StatusOr<SampleVectors> ReferenceVectors(const ModelConfig& config, const Model& model) {
  if (config.precision == Precision::kFloat32) return SampleVectors{};
  const absl::StatusOr<std::unique_ptr<Encoder>> reference =
      LoadEncoder(config.path, model.manifest, {.device = config.device, .engine = config.engine});
  if (!reference.ok()) return reference.status();
  return EmbedSample(model, **reference);
}

// How far a precision other than float32 moves vectors.
absl::Status CheckPrecision(const ModelConfig& config, const SampleVectors& expected, ServedModel& served) {
  if (expected.empty()) return absl::OkStatus();
  const absl::StatusOr<SampleVectors> actual = EmbedSample(served.model(), served.encoder());
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

absl::StatusOr<std::unique_ptr<Encoder>> LoadServedEncoder(const ModelConfig& config, const ModelManifest& manifest,
                                                           const std::string& name) {
  return LoadEncoder(config.path, manifest,
                     {.device = config.device,
                      .precision = config.precision,
                      .engine = config.engine,
                      .on_fallback = [&name](const std::string& why) {
                        Log(LogLevel::kWarning, "model runs with LibTorch, slower than with our kernels",
                            {{"model", name}, {"why", why}});
                      }});
}

void LogReady(const ModelConfig& config, const Device& device, const ServedModel& served, absl::Time started) {
  Log(LogLevel::kInfo, "model ready",
      {{"model", served.name()},
       {"precision", PrecisionName(config.precision)},
       {"device", served.encoder().device()},
       {"engine", served.encoder().engine()},
       {"workers", int64_t{device.scheduler.workers()}},
       {"max_batch_tokens", served.lane_options().batch.max_tokens},
       {"seconds", absl::ToDoubleSeconds(absl::Now() - started)}});
}

absl::StatusOr<std::unique_ptr<ServedModel>> LoadServedModel(const ModelConfig& config, Devices& devices,
                                                             Metrics& metrics) {
  const absl::Time started = absl::Now();
  absl::StatusOr<std::unique_ptr<const Model>> model = LoadModel(config.path);
  if (!model.ok()) return model.status();
  const ModelManifest& manifest = (*model)->manifest;
  if (const auto extension = RecommendedExtension(manifest); !extension.ok()) return extension.status();
  const std::string name = config.name.empty() ? manifest.name : config.name;
  // Before the encoder that is served: there need not be memory for both.
  const absl::StatusOr<SampleVectors> reference = ReferenceVectors(config, **model);
  if (!reference.ok()) return reference.status();
  absl::StatusOr<std::unique_ptr<Encoder>> encoder = LoadServedEncoder(config, manifest, name);
  if (!encoder.ok()) return encoder.status();
  const Device device = devices.ForDevice((*encoder)->device());
  const ServedModelOptions options{.lane = ToLaneOptions(config, manifest, device.scheduler.workers()),
                                   .max_queued_tokens = config.max_queued_tokens};
  auto served = std::make_unique<ServedModel>(name, *std::move(model), *std::move(encoder), device, options, metrics);
  if (const absl::Status status = served->WarmUp(); !status.ok()) return status;
  if (const absl::Status status = CheckPrecision(config, *reference, *served); !status.ok()) return status;
  LogReady(config, device, *served, started);
  return served;
}

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

  absl::Status Open(const ServerConfig& config, Metrics& metrics) {
    if (!config.health_listen.empty()) {
      absl::StatusOr<std::unique_ptr<HealthPort>> port = HealthPort::Start(config.health_listen);
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

void LogReload(const char* what, const absl::Status& status) {
  if (status.ok()) return Log(LogLevel::kInfo, "reloaded", {{"what", what}});
  Log(LogLevel::kError, "not reloaded; what was loaded before stays in use",
      {{"what", what}, {"why", std::string(status.message())}});
}

absl::StatusOr<std::unique_ptr<CertificateStore>> OpenCertificates(const TlsConfig& tls, Metrics& metrics) {
  absl::StatusOr<std::unique_ptr<CertificateStore>> store =
      CertificateStore::Open({.certificate = tls.certificate, .key = tls.key, .client_ca = tls.client_ca},
                             [&metrics](const Certificates& in_use, const absl::Status& status) {
                               metrics.CountTlsReload(status.ok());
                               metrics.SetCertificateExpiry(in_use.not_after);
                               LogReload("certificates", status);
                             });
  if (!store.ok()) return absl::InvalidArgumentError(absl::StrCat("tls: ", store.status().message()));
  const std::shared_ptr<const Certificates> first = (*store)->Current();
  metrics.SetCertificateExpiry(first->not_after);
  if (first->not_before > absl::Now()) {
    Log(LogLevel::kWarning, "the certificate is not valid yet",
        {{"path", tls.certificate}, {"valid_from", absl::FormatTime(first->not_before, absl::UTCTimeZone())}});
  }
  return store;
}

absl::StatusOr<std::unique_ptr<ApiKeyStore>> OpenApiKeys(const std::string& path, Metrics& metrics) {
  absl::StatusOr<std::unique_ptr<ApiKeyStore>> store = ApiKeyStore::Open(path, [&metrics](const absl::Status& status) {
    metrics.CountApiKeyReload(status.ok());
    LogReload("api_keys", status);
  });
  if (!store.ok()) return absl::InvalidArgumentError(absl::StrCat("api_keys: ", store.status().message()));
  return store;
}

// The files that say who may call and who we are.
struct Secrets {
  std::unique_ptr<CertificateStore> certificates;  // Null: plaintext.
  std::unique_ptr<ApiKeyStore> api_keys;           // Null: no key is asked for.

  absl::Status Open(const ServerConfig& config, Metrics& metrics) {
    if (config.tls.enabled()) {
      absl::StatusOr<std::unique_ptr<CertificateStore>> store = OpenCertificates(config.tls, metrics);
      if (!store.ok()) return store.status();
      certificates = *std::move(store);
    }
    if (!config.api_keys.empty()) {
      absl::StatusOr<std::unique_ptr<ApiKeyStore>> store = OpenApiKeys(config.api_keys, metrics);
      if (!store.ok()) return store.status();
      api_keys = *std::move(store);
    }
    return absl::OkStatus();
  }

  // Takes up what has changed, also while nobody calls.
  void Look() {
    if (certificates != nullptr) certificates->Current();
    if (api_keys != nullptr) api_keys->Look();
  }
};

// Says on all ports how the server is, as its models are.
class Watchman {
 public:
  Watchman(GrpcServer& server, HealthPort* port, const ModelRegistry& models, Metrics& metrics)
      : server_(server), port_(port), models_(models), metrics_(metrics) {}

  void SetServing(bool serving) {
    server_.SetServing(serving);
    if (port_ != nullptr) port_->health().SetServing(serving, server_.services());
    metrics_.SetServing(serving);
    serving_ = serving;
  }

  // An encoder that keeps failing takes the server out of service, until a probe succeeds; in the end the kubelet
  // starts it again.
  void LookAtModels() {
    constexpr absl::Duration kHopeless = absl::Seconds(30);
    absl::Time failing_since = absl::InfiniteFuture();
    for (const auto& model : models_.models()) {
      if (model->failing_since() == absl::InfiniteFuture()) continue;
      const absl::Status probe = model->Probe();
      if (probe.ok()) continue;
      failing_since = std::min(failing_since, model->failing_since());
      if (serving_) {
        Log(LogLevel::kError, "the encoder keeps failing; out of service",
            {{"model", model->name()}, {"why", std::string(probe.message())}});
      }
    }
    const bool healthy = failing_since == absl::InfiniteFuture();
    if (healthy && !serving_) Log(LogLevel::kInfo, "no encoder fails any more; back in service");
    if (healthy != serving_) SetServing(healthy);
    SetLive(healthy || absl::Now() - failing_since < kHopeless);
  }

 private:
  void SetLive(bool live) {
    if (live_ && !live)
      Log(LogLevel::kError, "an encoder has failed for too long; health says that the process is dead");
    live_ = live;
    server_.health().SetLive(live);
    if (port_ != nullptr) port_->health().SetLive(live);
  }

  GrpcServer& server_;
  HealthPort* const port_;
  const ModelRegistry& models_;
  Metrics& metrics_;
  bool serving_ = false;
  bool live_ = true;
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
int AwaitSignal(const StopSignals& signals, Secrets& secrets, Watchman& watchman, LogLevelFile& log_level) {
  while (true) {
    if (const int signal = signals.Take(absl::Seconds(1)); signal > 0) return signal;
    log_level.Look();
    secrets.Look();
    watchman.LookAtModels();
  }
}

// A second signal cuts it short.
void Drain(const ServerConfig& config, const StopSignals& signals, Watchman& watchman, GrpcServer& server) {
  watchman.SetServing(false);
  bool hurry = signals.Take(config.drain_delay) > 0;
  server.Shutdown(config.drain_timeout, [&signals, &hurry] { return hurry = hurry || signals.Pending(); });
  Log(LogLevel::kInfo, hurry ? "drained in a hurry, after a second signal" : "drained");
}

absl::Status CheckAllProfiles(const Profiles& profiles, const ModelRegistry& models) {
  std::vector<const ModelManifest*> manifests;
  for (const auto& model : models.models()) manifests.push_back(&model->model().manifest);
  return CheckProfiles(profiles, manifests);
}

void LogServing(const ServerConfig& config, const GrpcServer& server) {
  Log(LogLevel::kInfo, absl::StrCat("serving gRPC on port ", server.port()),
      {{"listen", config.listen},
       {"tls", config.tls.enabled() ? (config.tls.client_ca.empty() ? "on" : "mutual") : "off"},
       {"apis", server.has_tei() ? "longembed.v1 and tei.v1" : "longembed.v1 (tei.v1 needs tei.model)"}});
}

absl::Status Serve(const ServerConfig& config, const std::string& config_path, const StopSignals& signals) {
  const RealClock clock;
  Metrics metrics({.version = LONGEMBED_VERSION, .torch = TorchVersion()});
  Ports ports;
  if (const absl::Status status = ports.Open(config, metrics); !status.ok()) return status;
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
  PendingCalls pending(config.limits.max_pending_bytes);
  const Registration pending_reading = metrics.ReadPendingBytes([&pending] { return pending.bytes(); });
  // Before the pool, so that the pool's last tasks still find what they answer to.
  absl::StatusOr<std::unique_ptr<GrpcServer>> server = absl::UnavailableError("not started");
  // Two at least: a long text must not stand before short ones.
  WorkerPool pool(config.tokenization_threads > 0 ? config.tokenization_threads : std::max(2, AvailableCores() / 2));
  server = GrpcServer::Start(config,
                             {.models = models,
                              .pool = pool,
                              .clock = clock,
                              .metrics = metrics,
                              .limits = config.limits,
                              .profiles = *profiles,
                              .pending = pending,
                              .api_keys = secrets.api_keys.get()},
                             secrets.certificates.get());
  if (!server.ok()) return server.status();
  Watchman watchman(**server, ports.health.get(), models, metrics);
  watchman.SetServing(true);
  LogServing(config, **server);
  LogLevelFile log_level(config_path);
  const int signal = AwaitSignal(signals, secrets, watchman, log_level);
  Log(LogLevel::kInfo, "draining", {{"signal", int64_t{signal}}});
  Drain(config, signals, watchman, **server);
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
