// Hands connections of our Acceptor to a gRPC server.
#ifndef LONGEMBED_SERVER_RPC_CONNECTION_INTAKE_H_
#define LONGEMBED_SERVER_RPC_CONNECTION_INTAKE_H_

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>

#include <memory>

namespace longembed {

// Of one server; must outlive it. Thread-safe.
class ConnectionIntake {
 public:
  ConnectionIntake(grpc::ServerBuilder& builder, std::shared_ptr<grpc::ServerCredentials> credentials);

  // Owns the descriptor from then on. To be called once the server has been built.
  void Take(int descriptor);

 private:
  const std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> connections_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_CONNECTION_INTAKE_H_
