// One call as the server keeps it in mind, whatever it is about: who calls, what it holds, and, when it ends, its
// metrics and its line in the log.
#ifndef LONGEMBED_SERVER_RPC_CALL_RECORD_H_
#define LONGEMBED_SERVER_RPC_CALL_RECORD_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>
#include <grpcpp/support/status.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/core/embed_call.h"
#include "server/rpc/service_context.h"

namespace longembed {

// Who calls: by the name of the API key where keys are asked for, by address elsewhere.
struct Caller {
  std::string name;
  std::shared_ptr<const ApiKey> key;  // Null without keys.
};

// From the call's "authorization: Bearer KEY" or "x-api-key: KEY". Errors: UNAUTHENTICATED, counted.
absl::StatusOr<Caller> IdentifyCaller(const grpc::ServerContextBase& context, const ServiceContext& service);

// The same from headers alone (tls_credentials.h); a header that is missing is empty.
absl::StatusOr<std::shared_ptr<const ApiKey>> CheckApiKey(std::string_view authorization, std::string_view api_key,
                                                          ApiKeyStore& keys, Metrics& metrics);

// When the client stops waiting; InfiniteFuture when it said nothing.
absl::Time DeadlineOf(const grpc::CallbackServerContext& context);

// What the clients of an API are told instead of a status, where the API has codes of its own. Null: they are told the
// status.
using ClientStatus = absl::Status (*)(const absl::Status& status);

// Not thread-safe, but for the methods that are const.
class CallRecord {
 public:
  // Both must outlive it. The call counts as in flight until Finish.
  CallRecord(std::string method, grpc::CallbackServerContext& context, const ServiceContext& service,
             ClientStatus client_status = nullptr);

  // Whether the caller may call at all; the rest is to be used after that only.
  absl::Status identity() const { return caller_.status(); }

  // Counts the call and a request's bytes among those of the server, until the result is destroyed. Errors:
  // RESOURCE_EXHAUSTED.
  absl::StatusOr<std::unique_ptr<PendingCall>> Begin(int64_t bytes) const;
  // The same for a message of a stream, which has begun.
  absl::StatusOr<std::unique_ptr<PendingCall>> Hold(int64_t bytes) const;
  // Whether another message would be held.
  bool HasRoom() const;

  // Says in an order whose it is.
  void SignOrder(EmbedOrder& order) const;

  // The model that the call turned out to be for; empty until known.
  void set_model(const std::string& model) { model_ = model; }

  // Once: adds the retry hint to the call's trailing metadata, counts and logs. Gives what is to be told to gRPC then.
  grpc::Status Finish(const absl::Status& status);

  absl::Time arrival() const { return arrival_; }
  absl::Time deadline() const { return DeadlineOf(context_); }

 private:
  void WriteLog(const absl::Status& status, absl::Duration duration) const;

  const std::string method_;
  grpc::CallbackServerContext& context_;
  const ServiceContext& service_;
  const ClientStatus client_status_;
  const absl::Time arrival_;
  const absl::StatusOr<Caller> caller_;
  std::string model_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_CALL_RECORD_H_
