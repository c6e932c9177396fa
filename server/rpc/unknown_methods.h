// Answers calls of methods that a server does not have. gRPC's own answer is UNIMPLEMENTED without a word.
#ifndef LONGEMBED_SERVER_RPC_UNKNOWN_METHODS_H_
#define LONGEMBED_SERVER_RPC_UNKNOWN_METHODS_H_

#include <grpcpp/generic/async_generic_service.h>

namespace longembed {

// To be registered with a server, which it must outlive. It looks at no key, because it tells nothing but the name.
class UnknownMethods final : public grpc::CallbackGenericService {
 public:
  grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext* context) override;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_UNKNOWN_METHODS_H_
