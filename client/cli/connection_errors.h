// Explains why a connection could not be made.
#ifndef LONGEMBED_CLIENT_CLI_CONNECTION_ERRORS_H_
#define LONGEMBED_CLIENT_CLI_CONNECTION_ERRORS_H_

#include "absl/status/status.h"
#include "client/channel.h"

namespace longembed::client {

// Explains UNAVAILABLE: returns it without details, with a message that says what is wrong with the connection and what
// to do, or with the given message and a question if the cause is unknown. Returns other errors, and those with a
// reason of the server, unchanged. After DEADLINE_EXCEEDED it asks the server again, for at most one second, because
// retries may have hidden the reason.
absl::Status ExplainConnection(const absl::Status& status, const ClientOptions& options);

}  // namespace longembed::client

#endif  // LONGEMBED_CLIENT_CLI_CONNECTION_ERRORS_H_
