#include "server/rpc/grpc_status.h"

#include <string>

#include "server/errors/rpc_status.h"

namespace longembed {

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return {static_cast<grpc::StatusCode>(status.code()), std::string(status.message()),
          ToRpcStatus(status).SerializeAsString()};
}

}  // namespace longembed
