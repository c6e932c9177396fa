// Converts an absl::Status to google.rpc.Status.
#ifndef LONGEMBED_SERVER_ERRORS_RPC_STATUS_H_
#define LONGEMBED_SERVER_ERRORS_RPC_STATUS_H_

#include "absl/status/status.h"
#include "google/rpc/status.pb.h"

namespace longembed {

// BadRequest (field, description) for what is wrong with the request, RetryInfo for overload, ErrorInfo (reason, domain
// "longembed") where there is one.
google::rpc::Status ToRpcStatus(const absl::Status& status);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_ERRORS_RPC_STATUS_H_
