// State of a call that all RPCs have in common: its identity, its resources, and at its end its metrics and its log
// line.
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

// The properties of a call that are known when it arrives. Missing headers are empty.
struct Arrival {
  std::string address;      // The client's address in gRPC's form: "ipv4:10.0.0.1:4711", "ipv6:[::1]:4711".
  std::string certificate;  // The name in the client's certificate; empty if it has none.
  std::string authorization;
  std::string api_key;
  std::string traceparent;
  absl::Duration time_left = absl::InfiniteDuration();  // Until the client's deadline.
  std::string http_method;                              // For a call over HTTP; empty: over gRPC.
  std::string http_route;
};

// Finds the key in "authorization: Bearer KEY" or "x-api-key: KEY". Errors: UNAUTHENTICATED, counted in `metrics`.
absl::StatusOr<std::shared_ptr<const ApiKey>> CheckApiKey(std::string_view authorization, std::string_view api_key,
                                                          ApiKeyStore& keys, Metrics& metrics);

// The record of one call. Not thread-safe, except for its const methods.
class CallRecord {
 public:
  // `host` must outlive the record. The call counts as in flight until Finish.
  CallRecord(const ApiMethod& method, Arrival arrival, const HostContext& host);

  // Returns OK if the caller may call, else UNAUTHENTICATED. The other methods, except Finish, require OK.
  absl::Status identity() const { return caller_.status(); }
  const Caller& caller() const { return *caller_; }

  // Counts the call among those in progress until the result is destroyed. Errors: RESOURCE_EXHAUSTED.
  absl::StatusOr<std::unique_ptr<Charge>> Begin() const;

  // Returns the context for an operation of the call. `memory` and `trace` must outlive it.
  CallContext ContextFor(Charge& memory, bool may_wait, double answer_growth, RequestTrace* trace) const;

  // Begins the trace of one request of the call. Returns null if the call is not traced.
  std::unique_ptr<RequestTrace> TraceRequest() const;
  // Exports the span of a message of a stream. `request` is null if the call is not traced.
  void EndMessage(const RequestTrace* request, const absl::Status& status) const;
  // Sets the trace of the call's only request, which must live until Finish. May be null.
  void set_request(const RequestTrace* request) { request_ = request; }

  // Sets the model that the call is for, once it is known.
  void set_model(const std::string& model) { model_ = model; }

  // Counts and logs the call. Called once. Returns the status for the client.
  absl::Status Finish(const absl::Status& status);

  absl::Time arrival() const { return arrival_; }
  absl::Time deadline() const { return deadline_; }

 private:
  void WriteLog(const absl::Status& status, absl::Duration duration) const;
  // `sent_status` is `status` in the form that the client gets.
  void EndTrace(const absl::Status& status, const absl::Status& sent_status, absl::Time now) const;
  std::string TraceIdText() const;

  const std::string method_;
  absl::Status (*const client_status_)(const absl::Status& status);
  const bool exempt_;
  const Arrival details_;
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
