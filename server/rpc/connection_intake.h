// Hands connections of our Acceptor over to a gRPC server.
#ifndef LONGEMBED_SERVER_RPC_CONNECTION_INTAKE_H_
#define LONGEMBED_SERVER_RPC_CONNECTION_INTAKE_H_

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>

#include <memory>

namespace longembed {

// The connections of one server, which it must outlive. Thread-safe.
class ConnectionIntake {
 public:
  ConnectionIntake(grpc::ServerBuilder& builder, std::shared_ptr<grpc::ServerCredentials> credentials);

  // Takes ownership of the descriptor. REQUIRES: the server has been built.
  void Take(int descriptor);

 private:
  const std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> connections_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_CONNECTION_INTAKE_H_
