// Converts an absl::Status to google.rpc.Status.
#ifndef LONGEMBED_SERVER_ERRORS_RPC_STATUS_H_
#define LONGEMBED_SERVER_ERRORS_RPC_STATUS_H_

#include "absl/status/status.h"
#include "google/rpc/status.pb.h"

namespace longembed {

// Returns the status with details: BadRequest (field, description) if the error names a field of the request, RetryInfo
// for overload, and ErrorInfo (reason, domain "longembed") if the error has a reason.
google::rpc::Status ToRpcStatus(const absl::Status& status);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_ERRORS_RPC_STATUS_H_
