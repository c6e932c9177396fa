// The server's process: reads the config, checks what needs no model, loads the models, serves, and shuts down on
// a signal (server/process/signals.h).
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/encoder/load_encoder.h"
#include "server/api/apis.h"
#include "server/api/http/routes.h"
#include "server/config/config.h"
#include "server/core/model_registry.h"
#include "server/core/worker_pool.h"
#include "server/http/http_server.h"
#include "server/process/arguments.h"
#include "server/process/check_config.h"
#include "server/process/config_file.h"
#include "server/process/drain.h"
#include "server/process/health_monitor.h"
#include "server/process/load_models.h"
#include "server/process/process_context.h"
#include "server/process/signals.h"
#include "server/process/standard_descriptors.h"
#include "server/process/start_checks.h"
#include "server/process/terminate.h"
#include "server/rpc/grpc_server.h"
#include "server/telemetry/log.h"
#include "system/return_if_error.h"

// Settings of jemalloc, which reads the variable of this name. A background thread returns freed memory to the system,
// including memory that idle threads have freed.
extern "C" {
const char* malloc_conf = "background_thread:true";
}

namespace longembed {
namespace {

// Loads the models of the config, one after the other.
absl::Status LoadModels(const ServerConfig& config, Devices& devices, Metrics& metrics, Health& health,
                        ModelRegistry& models) {
  for (const ModelConfig& model_config : config.models) {
    absl::StatusOr<std::unique_ptr<ServedModel>> model = LoadServedModel(model_config, devices, metrics, health);
    if (!model.ok()) return model.status();
    metrics.SetQueueWaitLimit((*model)->name(), config.limits.max_queue_wait);
    RETURN_IF_ERROR(models.Add(*std::move(model)));
  }
  return absl::OkStatus();
}

// Watches files, models and streams until a signal asks the process to end. Returns the signal.
int AwaitStop(ProcessSignals& signals, ProcessContext& context, HealthMonitor& monitor, ConfigFile& config_file) {
  while (true) {
    const ProcessSignals::Event event = signals.Await(absl::Seconds(1));
    if (event.stop != 0) return event.stop;
    if (event.reload) {
      Log(LogLevel::kInfo, "reloading, after SIGHUP");
      config_file.Reload();
      context.secrets.Reload();
    }
    config_file.ReloadIfChanged();
    context.secrets.ReloadIfChanged();
    context.streams.EndOld();
    monitor.Check();
  }
}

void LogServing(const ServerConfig& config, const GrpcServer& server, bool has_tei) {
  Log(LogLevel::kInfo, absl::StrCat("serving gRPC on port ", server.port()),
      {{"listen", config.listen},
       {"tls", config.tls.enabled() ? (config.tls.client_ca.empty() ? "on" : "mutual") : "off"},
       {"apis", has_tei ? "longembed.v1 and tei.v1" : "longembed.v1 (tei.v1 needs tei.model)"}});
}

// Loads the models and serves until a signal arrives.
absl::Status Serve(const ServerConfig& config, const std::string& config_path, ProcessContext& context,
                   ProcessSignals& signals) {
  const Clock& clock = context.clock;
  Devices devices(config, clock);
  ModelRegistry models;
  RETURN_IF_ERROR(LoadModels(config, devices, context.metrics, context.health, models));
  // Declared in the order of their lifetimes: the pool's last tasks still use the objects above it.
  absl::StatusOr<std::unique_ptr<Apis>> apis = nullptr;
  std::unique_ptr<GrpcServer> server;
  std::unique_ptr<HttpServer> http;
  WorkerPool pool(TokenizationThreads(config, context.limits.cores), clock, config.limits.max_queue_wait);
  apis = Apis::Make(config.tei, {.models = models, .pool = pool, .clock = clock, .limits = config.limits},
                    context.profiles, context.calls);
  if (!apis.ok()) return apis.status();
  const Registration waiting_tasks = context.metrics.ReadTokenizationQueue(
      [&pool] { return TokenizationReading{.tasks = pool.waiting(), .longest_wait = pool.longest_wait()}; });
  signals.StartServing();
  context.health.Add((*apis)->names());
  server = std::make_unique<GrpcServer>(config, context.calls);
  RETURN_IF_ERROR(server->Start((*apis)->services(), context.health, std::move(context.ports.grpc),
                                context.secrets.certificates.get()));
  if (context.ports.http != nullptr) {
    http = std::make_unique<HttpServer>(config, context.calls, MakeRoutes(**apis, config.http, context.health),
                                        std::move(context.ports.http), context.secrets.certificates.get());
    Log(LogLevel::kInfo, absl::StrCat("serving HTTP on port ", http->port()));
  }
  HealthMonitor monitor(context.health, models, pool, context.metrics, clock);
  monitor.SetServing(true);
  LogServing(config, *server, (*apis)->has_tei());
  ConfigFile config_file(config_path, config);
  const int signal = AwaitStop(signals, context, monitor, config_file);
  Log(LogLevel::kInfo, "draining", {{"signal", SignalName(signal)}});
  Drain(config, signals, monitor, *server, http.get());
  return absl::OkStatus();
}

// Logs each problem in a line of its own. Returns the exit status.
int Report(const std::vector<std::string>& problems, int exit_status) {
  for (const std::string& problem : problems) LogFatal("start failed", problem);
  return problems.empty() ? EXIT_SUCCESS : exit_status;
}

absl::Status CheckMachineFor(const ServerConfig& config, const ModelConfig& model) {
  return CheckEncoderOptions(
      {.device = model.device, .precision = model.precision, .engine = model.engine, .kernels = config.cpu_kernels});
}

int Main(int argc, char** argv) {
  OpenStandardDescriptors();
  InstallTerminateHandler();
  const auto arguments =
      HandleArguments(argc, argv, LONGEMBED_VERSION,
                      {.libraries = absl::StrCat("LibTorch ", TorchVersion()), .cpu_kernels = AvailableCpuKernels()});
  if (const int* exit_status = std::get_if<int>(&arguments)) return *exit_status;
  const auto& [config_path, check_config] = std::get<ServerArguments>(arguments);
  if (check_config) return CheckConfig(config_path, CheckMachineFor, std::cout, std::cerr);
  BoundTorchCaches();  // Sets an environment variable, so no thread may run yet.
  BlockSignals();
  ProcessSignals& signals = *new ProcessSignals;  // Its thread runs until the process ends.
  Problems problems;
  const absl::StatusOr<ServerConfig> config = ReadConfig(config_path);
  problems.Add(config.status());
  SetLogFormat(config.ok() ? config->log.format : FindLogFormat(config_path));
  if (!config.ok()) return Report(problems.all(), kExitUsage);
  SetLogLevel(config->log.level);
  LogOverrides(*config);
  ProcessContext context(*config, {.version = LONGEMBED_VERSION, .torch = TorchVersion()});
  context.Open(*config, problems);
  // Only now, because storage that holds a model may not respond.
  if (problems.all().empty()) CheckModels(*config, CheckMachineFor, problems);
  if (problems.all().empty()) problems.Add(Serve(*config, config_path, context, signals));
  return Report(problems.all(), kExitFailure);
}

}  // namespace
}  // namespace longembed

int main(int argc, char** argv) { return longembed::Main(argc, argv); }
