// The host of a unary call: one request, one answer or one error, recorded.
#ifndef LONGEMBED_SERVER_RPC_UNARY_HOST_H_
#define LONGEMBED_SERVER_RPC_UNARY_HOST_H_

#include <grpcpp/support/byte_buffer.h>

#include <memory>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/core/operation.h"
#include "server/rpc/call_record.h"
#include "server/rpc/codec.h"
#include "server/rpc/exchange.h"
#include "server/rpc/host_context.h"

namespace longembed {

class UnaryHost {
 public:
  // The result for the client.
  struct Outcome {
    absl::Status status;
    grpc::ByteBuffer answer;  // When the status is OK.
    Operation::Headers headers;
  };
  using Finish = absl::AnyInvocable<void(Outcome) &&>;

  // `host` must outlive it. `finish` is called exactly once, by any thread, perhaps within one of the methods, and may
  // destroy this.
  UnaryHost(const ApiMethod& method, Arrival arrival, const HostContext& host, Finish finish,
            std::unique_ptr<Codec> codec = nullptr);  // Null: protobuf's wire format.

  // So many bytes of the request are here, or will be: takes memory for them, and first of all looks whether the client
  // may call. Where not, the call ends, and the result is false. For fronts that read a request bit by bit.
  bool Receive(int64_t bytes);
  // The request did not arrive whole. Instead of Start.
  void Abandon(const absl::Status& status) { End(status); }
  void Start(grpc::ByteBuffer request);
  // Cancels the call. REQUIRES: Start has returned. Any thread.
  void Cancel();

 private:
  // Errors: who may not call, or finds no room.
  absl::Status Admit();
  absl::Status TakeMemory(int64_t request_bytes);
  void End(const absl::Status& status);

  const ApiMethod method_;
  const HostContext& host_;
  CallRecord record_;
  Finish finish_;
  const std::unique_ptr<Codec> codec_;
  std::unique_ptr<Charge> message_;     // Charge of the exchange, beside that of the call. Null: not admitted.
  std::unique_ptr<Charge> call_;        // Until the client has taken the answer, which is when this goes.
  std::shared_ptr<Exchange> exchange_;  // Null when the call was refused before it had one.
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_UNARY_HOST_H_
