#include "server/rpc/connection_intake.h"

#include <utility>

namespace longembed {

using Builder = grpc::ServerBuilder::experimental_type;

ConnectionIntake::ConnectionIntake(grpc::ServerBuilder& builder, std::shared_ptr<grpc::ServerCredentials> credentials)
    : connections_(builder.experimental().AddExternalConnectionAcceptor(Builder::ExternalConnectionType::FROM_FD,
                                                                        std::move(credentials))) {}

void ConnectionIntake::Take(int descriptor) {
  grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters parameters;
  parameters.fd = descriptor;
  connections_->HandleNewConnection(&parameters);
}

}  // namespace longembed
