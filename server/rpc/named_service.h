// A gRPC service with its name, which gRPC's own class keeps to itself.
#ifndef LONGEMBED_SERVER_RPC_NAMED_SERVICE_H_
#define LONGEMBED_SERVER_RPC_NAMED_SERVICE_H_

#include <grpcpp/impl/service_type.h>

#include <string>
#include <vector>

namespace longembed {

struct NamedService {
  std::string name;  // With its package.
  grpc::Service* service = nullptr;
};

// The services of an API. They must outlive the server.
using Services = std::vector<NamedService>;

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_NAMED_SERVICE_H_
