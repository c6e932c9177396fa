// Dependencies of the hosts of calls, for every API.
#ifndef LONGEMBED_SERVER_RPC_HOST_CONTEXT_H_
#define LONGEMBED_SERVER_RPC_HOST_CONTEXT_H_

#include <cstdint>

#include "absl/time/time.h"
#include "server/admission/ledger.h"
#include "server/security/api_keys.h"
#include "server/telemetry/call_trace.h"
#include "server/telemetry/metrics.h"
#include "system/clock.h"

namespace longembed {

class OpenStreams;

// The objects and limits that hosts use. All of them must outlive the hosts.
struct HostContext {
  const Clock& clock;
  Metrics& metrics;
  Ledger& ledger;
  int64_t max_request_bytes = 16 << 20;
  int64_t max_response_bytes = 64 << 20;
  ApiKeyStore* api_keys = nullptr;  // Null: no key is required.
  OpenStreams* streams = nullptr;   // Drains streams; null if nothing is ever drained.
  absl::Duration max_stream_age = absl::InfiniteDuration();
  const Tracer* tracer = nullptr;  // Null: no call is traced.
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_HOST_CONTEXT_H_
