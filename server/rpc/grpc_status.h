// Converts absl::Status to gRPC's status, with google.rpc error details (rpc_status.h).
#ifndef LONGEMBED_SERVER_RPC_GRPC_STATUS_H_
#define LONGEMBED_SERVER_RPC_GRPC_STATUS_H_

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace longembed {

grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_GRPC_STATUS_H_
