// Answers calls of methods that a server does not have. gRPC's own answer is UNIMPLEMENTED with an empty message.
#ifndef LONGEMBED_SERVER_RPC_UNKNOWN_METHODS_H_
#define LONGEMBED_SERVER_RPC_UNKNOWN_METHODS_H_

#include <grpcpp/generic/async_generic_service.h>

namespace longembed {

// Register it with a server, which it must outlive. It requires no API key itself, because its answer holds only the
// method's own name. With TLS and API keys, the server's CallGuard (tls_credentials.h) refuses calls without a
// key before they get here, except calls of the packages whose services check keys themselves.
class UnknownMethods final : public grpc::CallbackGenericService {
 public:
  grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext* context) override;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_UNKNOWN_METHODS_H_
