// What every handler needs.
#ifndef LONGEMBED_SERVER_RPC_SERVICE_CONTEXT_H_
#define LONGEMBED_SERVER_RPC_SERVICE_CONTEXT_H_

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
  OpenStreams* streams = nullptr;   // GrpcServer sets it.
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_SERVICE_CONTEXT_H_
