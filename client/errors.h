// Converts errors of calls to absl::Status. The status has the server's code and message, and the google.rpc details
// are its payloads. All functions are stateless and thread-safe.
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
  std::string reason;  // The server's stable reason (google.rpc.ErrorInfo), such as "INPUT_TOO_LONG". Empty: none.
  std::string field;   // Path of the first invalid field (BadRequest), such as "inputs[3].text". Empty: none.
  std::optional<absl::Duration>
      retry_delay;  // Delay before the next attempt (RetryInfo). nullopt: the server gave none.
};

ErrorDetails GetErrorDetails(const absl::Status& status);

// Converts the status of a call. Invalid fields that the server's message does not name are added to the message.
absl::Status ToStatus(const grpc::Status& status);

// Converts the status of one input, which is EmbedResult.error.
absl::Status ToStatus(const google::rpc::Status& status);

}  // namespace longembed::client

#endif  // LONGEMBED_CLIENT_ERRORS_H_
