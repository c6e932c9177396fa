#include "client/retry.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/strings/numbers.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace longembed::client {
namespace {

std::optional<absl::Duration> RetryInfoDelay(const grpc::Status& status) {
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) return std::nullopt;
  google::rpc::RetryInfo retry;
  for (const auto& any : details.details()) {
    if (!any.UnpackTo(&retry)) continue;
    return absl::Seconds(retry.retry_delay().seconds()) + absl::Nanoseconds(retry.retry_delay().nanos());
  }
  return std::nullopt;
}

}  // namespace

Pushback ReadPushback(const grpc::ClientContext& context, const grpc::Status& status) {
  const auto& trailing = context.GetServerTrailingMetadata();
  const auto found = trailing.find("grpc-retry-pushback-ms");
  if (found == trailing.end()) return {.delay = RetryInfoDelay(status)};
  int64_t milliseconds = 0;
  const std::string text(found->second.data(), found->second.size());
  if (!absl::SimpleAtoi(text, &milliseconds) || milliseconds < 0) return {.never = true};
  return {.delay = absl::Milliseconds(milliseconds)};
}

std::optional<absl::Duration> DelayBeforeRetry(const RetryPolicy& policy, int attempt, grpc::StatusCode code,
                                               const Pushback& pushback, double jitter) {
  const bool retryable = code == grpc::StatusCode::UNAVAILABLE ||
                         (code == grpc::StatusCode::RESOURCE_EXHAUSTED && pushback.delay.has_value());
  if (!retryable || pushback.never || attempt >= policy.max_attempts) return std::nullopt;
  // Up to a fifth more, so that clients that were refused together do not come back together.
  if (pushback.delay.has_value()) return *pushback.delay * (1 + 0.2 * jitter);
  const absl::Duration doubled = policy.first_delay * std::exp2(std::min(attempt - 1, 30));
  return std::min(doubled, policy.max_delay) * (0.5 + 0.5 * jitter);
}

}  // namespace longembed::client
