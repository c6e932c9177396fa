// One request and its answer under a host: parses bytes into a message, runs an operation that answers it, and
// serializes the answer. The ledger counts its memory at every step.
#ifndef LONGEMBED_SERVER_RPC_EXCHANGE_H_
#define LONGEMBED_SERVER_RPC_EXCHANGE_H_

#include <google/protobuf/arena.h>
#include <grpcpp/support/byte_buffer.h>

#include <atomic>
#include <memory>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "server/core/operation.h"
#include "server/rpc/call_record.h"
#include "server/rpc/codec.h"

namespace longembed {

// One exchange. Held by shared_ptr; the caller of Start keeps it alive until Start returns. The messages are freed as
// soon as the answer has been serialized, however slowly a client reads it.
class Exchange {
 public:
  using Done = absl::AnyInvocable<void() &&>;

  // `record`, `host` and `codec` must outlive the exchange. `memory` is released when it is destroyed.
  Exchange(const ApiMethod& method, const CallRecord& record, const HostContext& host, std::unique_ptr<Charge> memory,
           bool may_wait, Codec& codec = WireCodec());

  // Starts the exchange. Takes the bytes and frees them once they are parsed. `done` is called exactly once, on any
  // thread, perhaps before Start returns.
  void Start(grpc::ByteBuffer bytes, Done done);
  // Cancels the operation. REQUIRES: Start has returned. May be called on any thread.
  void Cancel() { operation_->Cancel(); }
  // Returns the approximate memory of the answer. REQUIRES: Start has returned.
  int64_t expected_answer_bytes() const { return expected_bytes_; }

  // REQUIRES, for all below: `done` has been called.
  const absl::Status& status() const { return status_; }
  bool has_answer() const { return has_answer_; }  // False: the status is an error, or there is no answer to send.
  grpc::ByteBuffer& answer() { return answer_; }
  const std::string& model() const { return model_; }
  const Operation::Headers& headers() const { return headers_; }
  // Returns null if the call is not traced.
  const RequestTrace* trace() const { return trace_.get(); }

 private:
  // Parses the request and counts its memory on the ledger.
  absl::Status Parse(grpc::ByteBuffer& bytes);
  // Reads the scalar fields of an invalid request, or none if memory runs out.
  void ReadScalars(const grpc::ByteBuffer& bytes);
  void Finish(absl::Status status);
  absl::Status Serialize();
  // Frees the messages once both Start and the operation are done with them.
  void Release();

  const HostContext& host_;
  Codec& codec_;
  const std::unique_ptr<Charge> memory_;
  const std::unique_ptr<RequestTrace> trace_;
  const CallContext call_;
  std::unique_ptr<google::protobuf::Arena> arena_;
  google::protobuf::Message* const request_;
  google::protobuf::Message* const response_;
  const std::unique_ptr<Operation> operation_;

  int64_t request_space_ = 0;  // Bytes of the arena that the request takes.
  int64_t expected_bytes_ = 0;
  Done done_;
  absl::Status status_;
  bool has_answer_ = false;
  grpc::ByteBuffer answer_;
  int64_t answer_bytes_ = 0;  // Size of the answer, which the caller may have moved away before Start returns.
  std::string model_;
  Operation::Headers headers_;

  std::atomic<int> users_ = 2;  // Users of the messages: Start and the operation.
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_EXCHANGE_H_
