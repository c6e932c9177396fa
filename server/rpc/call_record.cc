#include "server/rpc/call_record.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"
#include "server/errors/errors.h"
#include "server/net/client_network.h"
#include "server/telemetry/log.h"

namespace longembed {
namespace {

std::unique_ptr<CallTrace> BeginTrace(const ApiMethod& method, const Arrival& arrival, absl::Time now,
                                      const HostContext& host) {
  if (host.tracer == nullptr || method.exempt) return nullptr;  // Health probes are not traced.
  return host.tracer->Begin(arrival.traceparent, now);
}

// Returns attributes by OpenTelemetry's semantic conventions for RPC or HTTP.
std::vector<Attribute> AttributesOf(const Arrival& arrival, const std::string& method, absl::StatusCode sent_status) {
  if (!arrival.http_method.empty()) {
    return {{"http.request.method", arrival.http_method}, {"http.route", arrival.http_route}, {"rpc.method", method}};
  }
  return {{"rpc.system", std::string("grpc")},
          {"rpc.method", method},
          {"rpc.grpc.status_code", static_cast<int64_t>(sent_status)}};
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

namespace {

absl::StatusOr<Caller> Identify(const Arrival& arrival, const HostContext& host) {
  if (host.api_keys == nullptr) {
    const bool certified = !arrival.certificate.empty();
    return Caller{.name = certified ? absl::StrCat("certificate:", arrival.certificate) : ClientOf(arrival.address)};
  }
  const absl::StatusOr<std::shared_ptr<const ApiKey>> key =
      CheckApiKey(arrival.authorization, arrival.api_key, *host.api_keys, host.metrics);
  if (!key.ok()) return key.status();
  return Caller{.name = (*key)->name,
                .has_key = true,
                .max_queued_tokens = (*key)->max_queued_tokens,
                .max_concurrent_calls = (*key)->max_concurrent_calls};
}

// Returns DEADLINE_EXCEEDED for a call that was cancelled at its deadline. gRPC cancels late calls, and a client resets
// its call at its own deadline, which may be slightly earlier.
absl::Status OrLate(const absl::Status& status, absl::Time arrival, absl::Time deadline, absl::Time now) {
  if (!absl::IsCancelled(status) || deadline == absl::InfiniteFuture()) return status;
  const absl::Duration margin = std::max(absl::Milliseconds(10), 0.01 * (deadline - arrival));
  return now < deadline - margin ? status : DeadlineExceeded();
}

}  // namespace

CallRecord::CallRecord(const ApiMethod& method, Arrival arrival, const HostContext& host)
    : method_(method.name),
      client_status_(method.client_status),
      exempt_(method.exempt),
      details_(std::move(arrival)),
      host_(host),
      arrival_(host.clock.Now()),
      deadline_(arrival_ + details_.time_left),
      caller_(Identify(details_, host)),
      trace_(BeginTrace(method, details_, arrival_, host)) {
  host_.metrics.RequestStarted(method_);
}

absl::StatusOr<std::unique_ptr<Charge>> CallRecord::Begin() const {
  return host_.ledger.BeginCall(caller_->name, caller_->max_concurrent_calls, exempt_);
}

CallContext CallRecord::ContextFor(Charge& memory, bool may_wait, double answer_growth, RequestTrace* trace) const {
  return {.caller = *caller_,
          .arrival = host_.clock.Now(),
          .deadline = deadline_,
          .may_wait = may_wait,
          .memory = memory,
          .answer_growth = answer_growth,
          .trace = trace};
}

std::unique_ptr<RequestTrace> CallRecord::TraceRequest() const {
  return trace_ == nullptr ? nullptr : std::make_unique<RequestTrace>(host_.clock.Now());
}

void CallRecord::EndMessage(const RequestTrace* request, const absl::Status& status) const {
  if (request == nullptr) return;
  const absl::Status& error = status.ok() ? request->error : status;
  trace_->EndMessage(*request, error, ErrorReason(error), host_.clock.Now());
}

void CallRecord::EndTrace(const absl::Status& status, const absl::Status& sent_status, absl::Time now) const {
  if (trace_ == nullptr) return;
  trace_->EndCall(method_,
                  {.code = status.code(),
                   .reason = ErrorReason(status),
                   .model = model_,
                   .attributes = AttributesOf(details_, method_, sent_status.code())},
                  request_, now);
}

std::string CallRecord::TraceIdText() const {
  if (trace_ != nullptr) return ToHex(trace_->trace_id());
  const std::optional<TraceParent> parent = ParseTraceparent(details_.traceparent);
  return parent.has_value() ? ToHex(parent->trace_id) : "";
}

absl::Status CallRecord::Finish(const absl::Status& ended) {
  const absl::Status status = OrLate(ended, arrival_, deadline_, host_.clock.Now());
  if (RetryDelay(status).has_value()) host_.metrics.CountRejected(model_, OverloadLabel(status));
  const absl::Time now = host_.clock.Now();
  const absl::Duration duration = now - arrival_;
  host_.metrics.RequestFinished(method_, absl::StatusCodeToString(status.code()), model_, duration);
  WriteLog(status, duration);
  const absl::Status sent_status = client_status_ == nullptr ? status : client_status_(status);
  EndTrace(status, sent_status, now);
  return sent_status;
}

void CallRecord::WriteLog(const absl::Status& status, absl::Duration duration) const {
  static LogSampler samplers[static_cast<int>(LogLevel::kError) + 1];
  const LogLevel level = LevelOf(status.code());
  int64_t suppressed = 0;
  const bool every = LogEnabled(LogLevel::kDebug);
  if (!LogEnabled(level) || (!every && !samplers[static_cast<int>(level)].Take(suppressed))) return;
  // Does not log the request, because it contains a client's text. Logs an error's message only if it is an error of
  // the server, because other messages may quote the request.
  Log(level, "call",
      {{"method", method_},
       {"code", absl::StatusCodeToString(status.code())},
       {"reason", ErrorReason(status)},
       {"why", level == LogLevel::kError ? std::string(status.message()) : std::string()},
       {"model", model_},
       {"client", caller_.ok() ? caller_->name : ClientOf(details_.address)},
       {"ms", absl::ToDoubleMilliseconds(duration)},
       {"trace_id", TraceIdText()},
       {"suppressed", suppressed}});
}

}  // namespace longembed
