// One request on its way to its answer, under a host: bytes to a message, an operation that answers it, the answer to
// bytes. Its memory is on the ledger at every step.
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

// Held by shared_ptr; the caller of Start keeps it alive until Start returns. The messages are freed as soon as the
// answer has been made into bytes, however long a client takes to read it.
class Exchange {
 public:
  using Done = absl::AnyInvocable<void() &&>;

  // `record`, `host` and `codec` must outlive it. `memory` is given back when it is destroyed.
  Exchange(const ApiMethod& method, const CallRecord& record, const HostContext& host, std::unique_ptr<Charge> memory,
           bool may_wait, Codec& codec = WireCodec());

  // Begins. Takes the bytes, which are gone once they have been parsed. `done` is called exactly once, by any thread,
  // perhaps before Start returns.
  void Start(grpc::ByteBuffer bytes, Done done);
  // After Start has returned, by any thread.
  void Cancel() { operation_->Cancel(); }
  // About what the answer will take. After Start has returned.
  int64_t expected_answer_bytes() const { return expected_bytes_; }

  // Once `done` has been called.
  const absl::Status& status() const { return status_; }
  bool has_answer() const { return has_answer_; }  // Else the status is an error, or there is nothing to say.
  grpc::ByteBuffer& answer() { return answer_; }
  const std::string& model() const { return model_; }
  const Operation::Headers& headers() const { return headers_; }
  // Null: the call is not traced.
  const RequestTrace* trace() const { return trace_.get(); }

 private:
  // The request's message, from its bytes; and what holds it, on the ledger.
  absl::Status Parse(grpc::ByteBuffer& bytes);
  // The scalar fields of a request that is invalid; none where memory runs out.
  void ReadWhatCanBeRead(const grpc::ByteBuffer& bytes);
  void Finish(absl::Status status);
  absl::Status Serialize();
  // Frees the messages once the operation has ended and Start is done with them.
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

  int64_t request_space_ = 0;  // Bytes of the arena that the request took.
  int64_t expected_bytes_ = 0;
  Done done_;
  absl::Status status_;
  bool has_answer_ = false;
  grpc::ByteBuffer answer_;
  int64_t answer_bytes_ = 0;  // Of the answer, which may have been taken before Start returns.
  std::string model_;
  Operation::Headers headers_;

  std::atomic<int> users_ = 2;  // Of the messages: Start and the operation.
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_EXCHANGE_H_
