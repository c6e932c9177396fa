// One unary call between gRPC and a handler: the raw bytes in, the answer or the error out, counted and timed.
#ifndef LONGEMBED_SERVER_RPC_UNARY_CALL_H_
#define LONGEMBED_SERVER_RPC_UNARY_CALL_H_

#include <google/protobuf/message.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/batching/clock.h"
#include "server/telemetry/metrics.h"

namespace longembed {

// When the client stops waiting; InfiniteFuture when it said nothing.
absl::Time DeadlineOf(const grpc::CallbackServerContext& context);

// For errors with a retry delay: clients with a retry policy obey this header; RetryInfo says the same to those that
// read details.
void AddRetryPushback(const absl::Status& status, grpc::CallbackServerContext& context);

// Deletes itself when gRPC is done with it. Exactly one of Succeed and Fail is called, once, by any thread.
class UnaryCall : public grpc::ServerUnaryReactor {
 public:
  UnaryCall(std::string method, grpc::CallbackServerContext* context, grpc::ByteBuffer* response, const Clock& clock,
            Metrics& metrics);

  void Succeed(const google::protobuf::Message& response);
  void Fail(const absl::Status& status);

  // The model that the call turned out to be for; empty until known. Before Succeed or Fail, by the same thread.
  void set_model(const std::string& model) { model_ = model; }

  absl::Time arrival() const { return arrival_; }
  absl::Time deadline() const;
  const Clock& clock() const { return clock_; }

  void OnDone() override { delete this; }

 protected:
  ~UnaryCall() override = default;

 private:
  void Count(absl::StatusCode code);

  const std::string method_;
  grpc::CallbackServerContext* const context_;
  grpc::ByteBuffer* const response_;
  const Clock& clock_;
  Metrics& metrics_;
  const absl::Time arrival_;
  std::string model_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_UNARY_CALL_H_
