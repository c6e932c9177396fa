#include "server/process/process_context.h"

#include <utility>

#include "absl/status/statusor.h"
#include "longembed/v1/embedding.grpc.pb.h"

namespace longembed {

ProcessContext::ProcessContext(const ServerConfig& config, const BuildInfo& build)
    : build(build),
      metrics(build),
      ledger(config.limits.max_pending_bytes),
      health({v1::EmbeddingService::service_full_name()}),
      calls{.clock = clock,
            .metrics = metrics,
            .ledger = ledger,
            .max_request_bytes = config.limits.max_request_bytes,
            .max_response_bytes = config.limits.max_response_bytes,
            .streams = &streams} {
  if (config.connections.max_age > absl::ZeroDuration()) calls.max_stream_age = config.connections.max_age;
}

void ProcessContext::Open(const ServerConfig& config, Problems& problems) {
  LogHostLimits(limits);
  CheckHostLimits(config, limits, problems);
  ports.Open(config, calls, health, problems);
  secrets.Open(config, metrics, problems);
  calls.api_keys = secrets.api_keys.get();
  tracing = Tracing::Start(config.tracing, build.version, metrics);
  if (tracing != nullptr) calls.tracer = &tracing->tracer();
  absl::StatusOr<Profiles> parsed = ParseProfiles(config.profiles);
  problems.Add(parsed.status());
  if (parsed.ok()) profiles = *std::move(parsed);
  problems.Add(ParseExtensionOf("tei.extension", config.tei.extension).status());
}
}  // namespace longembed
