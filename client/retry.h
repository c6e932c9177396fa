// When a failed call is worth another try, and how long to wait before it. Pure functions: any thread.
#ifndef LONGEMBED_CLIENT_RETRY_H_
#define LONGEMBED_CLIENT_RETRY_H_

#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>

#include <optional>

#include "absl/time/time.h"

namespace longembed::client {

struct RetryPolicy {
  int max_attempts = 6;  // The first one included; 1 = never try again.
  absl::Duration first_delay = absl::Milliseconds(100);
  absl::Duration max_delay = absl::Seconds(5);
};

// What the server said of trying again.
struct Pushback {
  std::optional<absl::Duration> delay;  // Wait so long.
  bool never = false;                   // Do not.
};

// From the trailing metadata "grpc-retry-pushback-ms" (gRFC A6: negative or unreadable = never), else from
// google.rpc.RetryInfo.
Pushback ReadPushback(const grpc::ClientContext& context, const grpc::Status& status);

// How long to wait before the next attempt; nullopt = give up. `attempt` is the one that failed, from 1; `jitter` is
// random in [0, 1). UNAVAILABLE is tried again after a delay that doubles with each attempt, anything with a pushback
// after that; RESOURCE_EXHAUSTED without one is not, for it need not mean overload.
std::optional<absl::Duration> DelayBeforeRetry(const RetryPolicy& policy, int attempt, grpc::StatusCode code,
                                               const Pushback& pushback, double jitter);

}  // namespace longembed::client

#endif  // LONGEMBED_CLIENT_RETRY_H_
