// Words for connections that cannot be made.
#ifndef LONGEMBED_CLIENT_CLI_CONNECTION_ERRORS_H_
#define LONGEMBED_CLIENT_CLI_CONNECTION_ERRORS_H_

#include "absl/status/status.h"
#include "client/channel.h"

namespace longembed::client {

// Returns UNAVAILABLE with what is wrong with the connection and what to do, in place of gRPC's words for it; any other
// error as it is. After a timeout it asks the server again, for a second at most: retries may have hidden the reason.
absl::Status ExplainConnection(const absl::Status& status, const ClientOptions& options);

}  // namespace longembed::client

#endif  // LONGEMBED_CLIENT_CLI_CONNECTION_ERRORS_H_
