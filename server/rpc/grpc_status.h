// The one crossing from absl::Status to gRPC's, with google.rpc error details.
#ifndef LONGEMBED_SERVER_RPC_GRPC_STATUS_H_
#define LONGEMBED_SERVER_RPC_GRPC_STATUS_H_

#include <grpcpp/support/status.h>

#include "absl/status/status.h"
#include "google/rpc/status.pb.h"

namespace longembed {

// BadRequest (field, description) for what is wrong with the request, RetryInfo for overload, ErrorInfo (reason, domain
// "longembed") where there is one.
google::rpc::Status ToRpcStatus(const absl::Status& status);
grpc::Status ToGrpcStatus(const absl::Status& status);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_GRPC_STATUS_H_
