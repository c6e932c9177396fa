// One unary call between gRPC and a handler: the raw bytes in, the answer or the error out, recorded.
#ifndef LONGEMBED_SERVER_RPC_UNARY_CALL_H_
#define LONGEMBED_SERVER_RPC_UNARY_CALL_H_

#include <google/protobuf/message.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <memory>
#include <new>
#include <string>

#include "absl/status/status.h"
#include "server/errors/errors.h"
#include "server/rpc/call_record.h"
#include "server/rpc/service_context.h"

namespace longembed {

// Deletes itself when gRPC is done with it. Exactly one of Succeed and Fail is called, once, by any thread.
class UnaryCall : public grpc::ServerUnaryReactor {
 public:
  UnaryCall(std::string method, const ServiceContext& service, grpc::CallbackServerContext* context,
            grpc::ByteBuffer* response, ClientStatus client_status = nullptr)
      : service_(service), record_(std::move(method), *context, service, client_status), response_(response) {}

  // To be called before anything else is done with the request. False: the caller may not call, or the server holds
  // too much; the call has failed.
  bool Begin(const grpc::ByteBuffer& request);

  void Succeed(const google::protobuf::Message& response);
  void Fail(const absl::Status& status);

  void OnDone() override { delete this; }

 protected:
  ~UnaryCall() override = default;

  CallRecord& record() { return record_; }
  const CallRecord& record() const { return record_; }
  const ServiceContext& service_;

 private:
  CallRecord record_;
  grpc::ByteBuffer* const response_;
  std::unique_ptr<PendingCall> pending_;
};

// Makes a handler, and starts it with the request if it may begin.
template <typename Handler, typename... Arguments>
grpc::ServerUnaryReactor* StartHandler(const grpc::ByteBuffer& request, Arguments&&... arguments) {
  auto* const handler = new Handler(std::forward<Arguments>(arguments)...);  // Deletes itself in OnDone.
  if (!handler->Begin(request)) return handler;
  try {
    handler->Start(request);
  } catch (const std::bad_alloc&) {  // While the request was parsed or checked: nothing has been begun.
    handler->Fail(ServerOutOfMemory());
  }
  return handler;
}

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_UNARY_CALL_H_
