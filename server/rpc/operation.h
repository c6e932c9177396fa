// One request and its answer, apart from how they travel: a unary call is one operation, a stream is one after the
// other.
#ifndef LONGEMBED_SERVER_RPC_OPERATION_H_
#define LONGEMBED_SERVER_RPC_OPERATION_H_

#include <google/protobuf/message.h>
#include <grpcpp/support/byte_buffer.h>

#include <cstdint>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/time/time.h"

namespace longembed {

class Operation {
 public:
  using Done = absl::AnyInvocable<void(const absl::Status&) &&>;

  virtual ~Operation() = default;

  // Parses the request and begins with it. `done` is called exactly once, by any thread, perhaps before Start returns;
  // until then the operation must live.
  virtual void Start(const grpc::ByteBuffer& bytes, absl::Time deadline, Done done) = 0;

  // Nobody waits any more: `done` is called soon. After Start has returned, by any thread.
  virtual void Cancel() = 0;

  // When `done` got OK: whether there is anything to send. A part of a larger message has nothing.
  virtual bool has_response() const { return true; }
  virtual const google::protobuf::Message& response() const = 0;
  // Of the answer, where that may be very much larger than the request; about. After Start has returned.
  virtual int64_t expected_answer_bytes() const { return 0; }

  // For metrics; empty until known.
  virtual std::string model() const = 0;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_OPERATION_H_
