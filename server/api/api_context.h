// Dependencies of the operations of every API.
#ifndef LONGEMBED_SERVER_API_API_CONTEXT_H_
#define LONGEMBED_SERVER_API_API_CONTEXT_H_

#include "server/config/config.h"
#include "server/core/model_registry.h"
#include "server/core/worker_pool.h"
#include "system/clock.h"

namespace longembed {

// The objects that operations use. All of them must outlive the operations.
struct ApiContext {
  const ModelRegistry& models;
  WorkerPool& pool;
  const Clock& clock;
  const LimitsConfig& limits;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_API_API_CONTEXT_H_
