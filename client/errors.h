// The errors of calls: absl::Status with the server's code and message, and its google.rpc details as payloads.
// Stateless: any thread.
//
//   const absl::Status status = client.Embed(request).status();
//   if (GetErrorDetails(status).reason == "INPUT_TOO_LONG") Split(request);
#ifndef LONGEMBED_CLIENT_ERRORS_H_
#define LONGEMBED_CLIENT_ERRORS_H_

#include <grpcpp/support/status.h>

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "google/rpc/status.pb.h"

namespace longembed::client {

struct ErrorDetails {
  std::string reason;  // The server's stable reason (google.rpc.ErrorInfo), such as "INPUT_TOO_LONG"; empty: none.
  std::string field;   // Path of the first field at fault (BadRequest), such as "inputs[3].text"; empty: none.
  std::optional<absl::Duration>
      retry_delay;  // Delay before the next attempt (RetryInfo); nullopt: the server gave no hint.
};

ErrorDetails GetErrorDetails(const absl::Status& status);

// Of a call. The message also names fields at fault that the server's sentence does not.
absl::Status ToStatus(const grpc::Status& status);

// Of one input: EmbedResult.error.
absl::Status ToStatus(const google::rpc::Status& status);

}  // namespace longembed::client

#endif  // LONGEMBED_CLIENT_ERRORS_H_
