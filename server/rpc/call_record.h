// Per-call state common to all RPCs: identity, held resources, and, at its end, its metrics and its line
// in the log.
#ifndef LONGEMBED_SERVER_RPC_CALL_RECORD_H_
#define LONGEMBED_SERVER_RPC_CALL_RECORD_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/core/operation.h"
#include "server/rpc/host_context.h"

namespace longembed {

// The facts of a call when it arrives. Missing headers are empty.
struct Arrival {
  std::string address;      // Of the client, as gRPC writes it: "ipv4:10.0.0.1:4711", "ipv6:[::1]:4711".
  std::string certificate;  // The name in the client's certificate; empty without one.
  std::string authorization;
  std::string api_key;
  std::string traceparent;
  absl::Duration time_left = absl::InfiniteDuration();  // Until the client's deadline.
  std::string http_method;                              // Of a call over HTTP; empty: over gRPC.
  std::string http_route;
};

// From "authorization: Bearer KEY" or "x-api-key: KEY". Errors: UNAUTHENTICATED, counted.
absl::StatusOr<std::shared_ptr<const ApiKey>> CheckApiKey(std::string_view authorization, std::string_view api_key,
                                                          ApiKeyStore& keys, Metrics& metrics);

// Not thread-safe, but for the methods that are const.
class CallRecord {
 public:
  // `host` must outlive it. The call counts as in flight until Finish.
  CallRecord(const ApiMethod& method, Arrival arrival, const HostContext& host);

  // Whether the caller may call at all; the rest is to be used after that only.
  absl::Status identity() const { return caller_.status(); }
  const Caller& caller() const { return *caller_; }

  // Counts the call among those of the server, until the result is destroyed. Errors: RESOURCE_EXHAUSTED.
  absl::StatusOr<std::unique_ptr<Charge>> Begin() const;

  // The context for an operation of the call. `memory` and `trace` must outlive it.
  CallContext ContextFor(Charge& memory, bool may_wait, RequestTrace* trace) const;

  // Of one request of the call. Null: the call is not traced.
  std::unique_ptr<RequestTrace> TraceRequest() const;
  // Exports a message of a stream. Null: not traced.
  void EndMessage(const RequestTrace* request, const absl::Status& status) const;
  // The call's only request; lives until Finish. May be null.
  void set_request(const RequestTrace* request) { request_ = request; }

  // The model that the call turned out to be for; empty until known.
  void set_model(const std::string& model) { model_ = model; }

  // Counts and logs; called once. Returns the status for the client.
  absl::Status Finish(const absl::Status& status);

  absl::Time arrival() const { return arrival_; }
  absl::Time deadline() const { return deadline_; }

 private:
  void WriteLog(const absl::Status& status, absl::Duration duration) const;
  // `told`: the client's form of `status`.
  void EndTrace(const absl::Status& status, const absl::Status& told, absl::Time now) const;
  std::string TraceIdText() const;

  const std::string method_;
  absl::Status (*const client_status_)(const absl::Status& status);
  const Arrival front_;
  const HostContext& host_;
  const absl::Time arrival_;
  const absl::Time deadline_;
  const absl::StatusOr<Caller> caller_;
  const std::unique_ptr<CallTrace> trace_;  // Null: the call is not traced.
  const RequestTrace* request_ = nullptr;
  std::string model_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_CALL_RECORD_H_
