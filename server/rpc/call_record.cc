#include "server/rpc/call_record.h"

#include <optional>
#include <string_view>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"
#include "server/errors/errors.h"
#include "server/rpc/grpc_status.h"
#include "server/telemetry/log.h"

namespace longembed {
namespace {

std::string_view Header(const grpc::ServerContextBase& context, const char* name) {
  const auto found = context.client_metadata().find(name);
  if (found == context.client_metadata().end()) return {};
  return {found->second.data(), found->second.size()};
}

// "ipv4:10.0.0.1:4711" without the port: one client has many connections.
std::string HostOf(const std::string& peer) { return peer.substr(0, peer.rfind(':')); }

// The trace id of W3C's "traceparent: 00-TRACE-PARENT-FLAGS"; empty without one.
std::string TraceId(std::string_view traceparent) {
  constexpr size_t kStart = 3, kLength = 32, kWhole = 55;
  if (traceparent.size() < kWhole || traceparent[kStart + kLength] != '-') return "";
  const std::string_view id = traceparent.substr(kStart, kLength);
  return id.find_first_not_of("0123456789abcdef") == std::string_view::npos ? std::string(id) : "";
}

LogLevel LevelOf(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kDataLoss:
      return LogLevel::kError;
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kUnauthenticated:
      return LogLevel::kWarning;
    default:
      return LogLevel::kDebug;
  }
}

}  // namespace

absl::StatusOr<std::shared_ptr<const ApiKey>> CheckApiKey(std::string_view authorization, std::string_view api_key,
                                                          ApiKeyStore& keys, Metrics& metrics) {
  constexpr std::string_view kBearer = "Bearer ";
  std::string_view presented = api_key;
  if (authorization.size() > kBearer.size() &&
      absl::EqualsIgnoreCase(std::string(authorization.substr(0, kBearer.size())), std::string(kBearer))) {
    presented = authorization.substr(kBearer.size());
  }
  if (presented.empty()) {
    metrics.CountAuthenticationFailure("missing");
    return MissingApiKey();
  }
  std::shared_ptr<const ApiKey> key = keys.Find(presented);
  if (key == nullptr) {
    metrics.CountAuthenticationFailure("unknown");
    return UnknownApiKey();
  }
  return key;
}

absl::StatusOr<Caller> IdentifyCaller(const grpc::ServerContextBase& context, const ServiceContext& service) {
  if (service.api_keys == nullptr) return Caller{.name = HostOf(context.peer())};
  absl::StatusOr<std::shared_ptr<const ApiKey>> key =
      CheckApiKey(Header(context, "authorization"), Header(context, "x-api-key"), *service.api_keys, service.metrics);
  if (!key.ok()) return key.status();
  return Caller{.name = (*key)->name, .key = *std::move(key)};
}

absl::Time DeadlineOf(const grpc::CallbackServerContext& context) {
  const auto deadline = context.deadline();
  return deadline == std::chrono::system_clock::time_point::max() ? absl::InfiniteFuture() : absl::FromChrono(deadline);
}

CallRecord::CallRecord(std::string method, grpc::CallbackServerContext& context, const ServiceContext& service,
                       ClientStatus client_status)
    : method_(std::move(method)),
      context_(context),
      service_(service),
      client_status_(client_status),
      arrival_(service.clock.Now()),
      caller_(IdentifyCaller(context, service)) {
  service_.metrics.RequestStarted(method_);
}

absl::StatusOr<std::unique_ptr<PendingCall>> CallRecord::Begin(int64_t bytes) const {
  return service_.pending.Begin(caller_->name, bytes, caller_->key == nullptr ? 0 : caller_->key->max_concurrent_calls);
}

absl::StatusOr<std::unique_ptr<PendingCall>> CallRecord::Hold(int64_t bytes) const {
  return service_.pending.Hold(caller_->name, bytes);
}

bool CallRecord::HasRoom() const { return service_.pending.HasRoom(caller_->name); }

void CallRecord::SignOrder(EmbedOrder& order) const {
  order.client = caller_->name;
  if (caller_->key == nullptr) return;
  order.max_client_tokens = caller_->key->max_queued_tokens;
  order.has_key = true;
}

grpc::Status CallRecord::Finish(const absl::Status& status) {
  if (const std::optional<absl::Duration> delay = RetryDelay(status); delay.has_value()) {
    // Clients with a retry policy obey this header; RetryInfo says the same to those that read details.
    context_.AddTrailingMetadata("grpc-retry-pushback-ms", absl::StrCat(absl::ToInt64Milliseconds(*delay)));
    service_.metrics.CountRejected(model_, OverloadLabel(status));
  }
  const absl::Duration duration = service_.clock.Now() - arrival_;
  service_.metrics.RequestFinished(method_, absl::StatusCodeToString(status.code()), model_, duration);
  WriteLog(status, duration);
  return ToGrpcStatus(client_status_ == nullptr ? status : client_status_(status));
}

void CallRecord::WriteLog(const absl::Status& status, absl::Duration duration) const {
  static LogSampler samplers[static_cast<int>(LogLevel::kError) + 1];
  const LogLevel level = LevelOf(status.code());
  int64_t suppressed = 0;
  const bool every = LogEnabled(LogLevel::kDebug);
  if (!LogEnabled(level) || (!every && !samplers[static_cast<int>(level)].Take(suppressed))) return;
  // Neither the message nor the request: they may hold what a client wrote. But what went wrong in the server is told.
  Log(level, "call",
      {{"method", method_},
       {"code", absl::StatusCodeToString(status.code())},
       {"reason", ErrorReason(status)},
       {"why", level == LogLevel::kError ? std::string(status.message()) : std::string()},
       {"model", model_},
       {"client", caller_.ok() ? caller_->name : HostOf(context_.peer())},
       {"ms", absl::ToDoubleMilliseconds(duration)},
       {"trace_id", TraceId(Header(context_, "traceparent"))},
       {"suppressed", suppressed}});
}

}  // namespace longembed
