// One request and its answer, independent of the transport. An operation knows nothing of gRPC. It reads one message
// and fills another, for a unary call, for one message of a stream, or for any other transport.
#ifndef LONGEMBED_SERVER_CORE_OPERATION_H_
#define LONGEMBED_SERVER_CORE_OPERATION_H_

#include <google/protobuf/message.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/admission/ledger.h"
#include "server/telemetry/request_trace.h"

namespace longembed {

// Identity and limits of the caller. `name` identifies the client: the name of its API key or certificate, or its
// address.
struct Caller {
  std::string name;
  bool has_key = false;           // The name is that of an API key, chosen by the operator: fit for a metric's label.
  int64_t max_queued_tokens = 0;  // Limit of the client's waiting tokens; 0 = no limit of its own.
  int64_t max_concurrent_calls = 0;  // 0 = no limit of its own.
};

// The call that an operation belongs to. Outlives the operation.
struct CallContext {
  const Caller& caller;
  absl::Time arrival;
  absl::Time deadline;       // InfiniteFuture: no deadline.
  bool may_wait = false;     // If the queue is full, wait instead of failing; flow control then slows the client down.
  Charge& memory;            // The memory of this request.
  double answer_growth = 1;  // Bytes of the answer for each byte of its wire format, at most; more than 1 for JSON.
  RequestTrace* trace = nullptr;  // Null: the call is not traced.
};

class Operation {
 public:
  using Done = absl::AnyInvocable<void(const absl::Status&) &&>;
  using Headers = std::vector<std::pair<std::string, std::string>>;

  virtual ~Operation() = default;

  // Starts the operation. It calls `done` exactly once, as its last action, on any thread and perhaps before Start
  // returns. May throw bad_alloc as long as `done` has not been called and nothing runs.
  virtual void Start(Done done) = 0;

  // Called instead of Start if the request is invalid. `status` says why, and the request holds the fields that could
  // be read. An operation may answer with the error instead of failing.
  virtual void Reject(const absl::Status& status, Done done) { std::move(done)(status); }

  // Cancels the operation; `done` is called soon. REQUIRES: Start has returned. Any thread may call it, even after
  // `done`, when the messages are gone.
  virtual void Cancel() {}

  // Returns whether there is an answer to send. A part of a larger message has none. REQUIRES: `done` was called with
  // OK.
  virtual bool has_response() const { return true; }
  // Returns the approximate size of the answer if it may be much larger than the request, else 0. REQUIRES: Start has
  // returned.
  virtual int64_t expected_answer_bytes() const { return 0; }
  // Returns headers of the answer, for transports that have headers. REQUIRES: `done` was called with OK.
  virtual Headers headers() const { return {}; }
  // Returns the model's name, for metrics; empty if it is not known. REQUIRES: the operation has ended.
  virtual std::string model() const { return ""; }
};

// One method of an API. A host creates its operations.
struct ApiMethod {
  std::string name;                                    // For metrics and logs.
  const google::protobuf::Message* request = nullptr;  // An instance of its type.
  const google::protobuf::Message* response = nullptr;
  // Creates one operation. The messages are empty and live until the operation is done.
  std::function<std::unique_ptr<Operation>(const CallContext&, google::protobuf::Message& request,
                                           google::protobuf::Message& response)>
      make;
  // Translates a status for APIs with status codes of their own. Null: the status is unchanged.
  absl::Status (*client_status)(const absl::Status& status) = nullptr;
  // Whether the method answers even when memory is short (admission/ledger.h). Only for small requests and answers.
  bool exempt = false;
  // The requirement that this server lacks, so that the method returns UNIMPLEMENTED. Empty: none is missing.
  std::string missing_requirement;
};

// Options for answering the messages of a stream.
struct StreamOptions {
  bool in_order = true;  // Whether answers keep the order of their messages, or are sent as they are ready.
  // Limits for messages that are in progress or wait to be written. At a limit the next message is not read.
  size_t max_messages = 64;
  int64_t max_bytes = 16 << 20;  // Bytes of their requests and answers.
  // Returns an error if the client closed the stream with something unfinished. Null: nothing can be unfinished.
  std::function<absl::Status()> check_end;
};

// Returns a method whose operations are OperationType(context, call, request, response). `context` must outlive it.
template <typename OperationType, typename Context>
ApiMethod MakeMethod(std::string name, const Context& context) {
  using Request = typename OperationType::Request;
  using Response = typename OperationType::Response;
  return {.name = std::move(name),
          .request = &Request::default_instance(),
          .response = &Response::default_instance(),
          .make = [&context](const CallContext& call, google::protobuf::Message& request,
                             google::protobuf::Message& response) -> std::unique_ptr<Operation> {
            return std::make_unique<OperationType>(context, call, static_cast<Request&>(request),
                                                   static_cast<Response&>(response));
          }};
}

// Base class of operations: holds their messages and ends them.
template <typename RequestType, typename ResponseType>
class TypedOperation : public Operation {
 public:
  using Request = RequestType;
  using Response = ResponseType;

  TypedOperation(const CallContext& call, const Request& request, Response& response)
      : call_(call), request_(request), response_(response) {}

 protected:
  // Ends the operation. Nothing may follow, because `done` may hold the last reference to the operation.
  void End(const absl::Status& status) {
    Done done = std::move(done_);
    std::move(done)(status);
  }

  const CallContext& call_;
  const Request& request_;
  Response& response_;
  Done done_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_CORE_OPERATION_H_
