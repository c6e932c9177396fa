// One request and its answer, apart from how they travel. An operation knows nothing of gRPC: it gets messages and
// gives messages, as a unary call, as one message of a stream, or behind any other front.
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
  bool has_key = false;           // The name is that of an API key, which the operator chose: fit for a metric's label.
  int64_t max_queued_tokens = 0;  // That the client may have waiting; 0 = no limit of its own.
  int64_t max_concurrent_calls = 0;  // 0 = no limit of its own.
};

// The call that an operation belongs to. Outlives the operation.
struct CallContext {
  const Caller& caller;
  absl::Time arrival;
  absl::Time deadline;    // InfiniteFuture: no deadline.
  bool may_wait = false;  // Wait if the queue is full, instead of failing; flow control slows a stream's client down.
  Charge& memory;         // Of the request that this is.
  RequestTrace* trace = nullptr;  // Null: the call is not traced.
};

class Operation {
 public:
  using Done = absl::AnyInvocable<void(const absl::Status&) &&>;
  using Headers = std::vector<std::pair<std::string, std::string>>;

  virtual ~Operation() = default;

  // Begins. `done` is called exactly once, by any thread, perhaps before Start returns, as the last thing that the
  // operation does. May throw bad_alloc as long as `done` has not been called and nothing runs.
  virtual void Start(Done done) = 0;

  // Instead of Start: the request is invalid because of `status` and holds the fields that could be read. An
  // operation that can answer with an error may do so.
  virtual void Reject(const absl::Status& status, Done done) { std::move(done)(status); }

  // Cancels: `done` is called soon. REQUIRES: Start has returned. Any thread, perhaps after `done`, when the messages
  // are gone.
  virtual void Cancel() {}

  // After `done` with OK: whether there is an answer to send. A part of a larger message has none.
  virtual bool has_response() const { return true; }
  // Of the answer, where that may be very much larger than the request; about. After Start has returned.
  virtual int64_t expected_answer_bytes() const { return 0; }
  // Headers of the answer, for fronts that have headers. After `done` with OK.
  virtual Headers headers() const { return {}; }
  // For metrics, when it has ended; empty where it is not known.
  virtual std::string model() const { return ""; }
};

// One method of an API, of which a host makes operations.
struct ApiMethod {
  std::string name;                                    // For metrics and logs.
  const google::protobuf::Message* request = nullptr;  // Of what types they are.
  const google::protobuf::Message* response = nullptr;
  // Makes one operation. The messages are empty; they live until the operation is done.
  std::function<std::unique_ptr<Operation>(const CallContext&, google::protobuf::Message& request,
                                           google::protobuf::Message& response)>
      make;
  // Translates a status for APIs that have codes of their own. Null: unchanged.
  absl::Status (*client_status)(const absl::Status& status) = nullptr;
  // The answer is small, and sent even when memory is short.
  bool exempt = false;
  // Not empty: the requirement that is missing; the method answers UNIMPLEMENTED.
  std::string lacks;
};

// Options for answering the messages of a stream.
struct StreamOptions {
  bool in_order = true;  // Answers come in the order of their messages; else as they are ready.
  // Limits of the messages in progress or waiting to be written, before the next one is read.
  size_t max_messages = 64;
  int64_t max_bytes = 16 << 20;  // Of their requests and answers.
  // Returns the error of a stream whose client closed it with something unfinished. Null: nothing can be unfinished.
  std::function<absl::Status()> check_end;
};

// The method whose operations are made as SomeOperation(context, call, request, response). `context` must outlive it.
template <typename SomeOperation, typename Context>
ApiMethod MakeMethod(std::string name, const Context& context) {
  using Request = typename SomeOperation::Request;
  using Response = typename SomeOperation::Response;
  return {.name = std::move(name),
          .request = &Request::default_instance(),
          .response = &Response::default_instance(),
          .make = [&context](const CallContext& call, google::protobuf::Message& request,
                             google::protobuf::Message& response) -> std::unique_ptr<Operation> {
            return std::make_unique<SomeOperation>(context, call, static_cast<Request&>(request),
                                                   static_cast<Response&>(response));
          }};
}

// Base of operations: holds their messages and ends them.
template <typename RequestType, typename ResponseType>
class TypedOperation : public Operation {
 public:
  using Request = RequestType;
  using Response = ResponseType;

  TypedOperation(const CallContext& call, const Request& request, Response& response)
      : call_(call), request_(request), response_(response) {}

 protected:
  // The last thing that an operation does: `done` may be what kept it alive.
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
