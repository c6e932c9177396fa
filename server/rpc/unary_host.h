// Hosts a unary call: one request, and one answer or error. Records the call.
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
    grpc::ByteBuffer answer;  // Set if the status is OK.
    Operation::Headers headers;
  };
  using Finish = absl::AnyInvocable<void(Outcome) &&>;

  // `host` must outlive this object. `finish` is called exactly once, on any thread, perhaps within one of the methods,
  // and may destroy this object.
  UnaryHost(const ApiMethod& method, Arrival arrival, const HostContext& host, Finish finish,
            std::unique_ptr<Codec> codec = nullptr);  // Null: protobuf's wire format.

  // Reserves memory for the first `bytes` bytes of the request, whether they have arrived or not. Also checks whether
  // the client may call, when it is called first. If either fails, ends the RPC and returns false. For transports that
  // read a request in pieces.
  bool Receive(int64_t bytes);
  // Ends a call whose request did not arrive completely. Called instead of Start.
  void Abandon(const absl::Status& status) { End(status); }
  // Starts the call with the complete request.
  void Start(grpc::ByteBuffer request);
  // Cancels the call. REQUIRES: Start has returned. May be called on any thread.
  void Cancel();

 private:
  // Begins the call. Errors: the client may not call, or there is no room.
  absl::Status Admit();
  absl::Status TakeMemory(int64_t request_bytes);
  void End(const absl::Status& status);

  const ApiMethod method_;
  const HostContext& host_;
  CallRecord record_;
  Finish finish_;
  const std::unique_ptr<Codec> codec_;
  std::unique_ptr<Charge> message_;     // Charge of the exchange, apart from that of the call. Null: not admitted.
  std::unique_ptr<Charge> call_;        // Held until the client has taken the answer and this object is destroyed.
  std::shared_ptr<Exchange> exchange_;  // Null if the call was rejected before it had one.
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_UNARY_HOST_H_
