// What every handler needs.
#ifndef LONGEMBED_SERVER_RPC_SERVICE_CONTEXT_H_
#define LONGEMBED_SERVER_RPC_SERVICE_CONTEXT_H_

#include "absl/time/time.h"
#include "server/admission/pending.h"
#include "server/batching/clock.h"
#include "server/config/config.h"
#include "server/core/served_model.h"
#include "server/core/worker_pool.h"
#include "server/rpc/extension_converter.h"
#include "server/security/api_keys.h"
#include "server/telemetry/metrics.h"

namespace longembed {

class OpenStreams;

// All of it outlives the services.
struct ServiceContext {
  const ModelRegistry& models;
  WorkerPool& pool;
  const Clock& clock;
  Metrics& metrics;
  const LimitsConfig& limits;
  const Profiles& profiles;
  PendingCalls& pending;
  ApiKeyStore* api_keys = nullptr;  // Null: no key is asked for.
  // GrpcServer sets these.
  OpenStreams* streams = nullptr;
  absl::Duration max_stream_age = absl::InfiniteDuration();
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_SERVICE_CONTEXT_H_
