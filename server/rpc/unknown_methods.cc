#include "server/rpc/unknown_methods.h"

#include "server/errors/errors.h"
#include "server/rpc/grpc_status.h"

namespace longembed {
namespace {

class UnknownMethodReactor final : public grpc::ServerGenericBidiReactor {
 public:
  explicit UnknownMethodReactor(const grpc::Status& status) { Finish(status); }
  void OnDone() override { delete this; }
};

}  // namespace

grpc::ServerGenericBidiReactor* UnknownMethods::CreateReactor(grpc::GenericCallbackServerContext* context) {
  return new UnknownMethodReactor(ToGrpcStatus(UnknownMethod(context->method())));  // Deletes itself in OnDone.
}

}  // namespace longembed
