// A client of longembed.v1.EmbeddingService: blocking calls, with gRPC's own retries.
//
//   Client client({.server = "127.0.0.1:50051"});
//   v1::EmbedRequest request;
//   request.mutable_options()->set_prompt_name("query");
//   request.add_inputs()->set_text("how long is the Nile?");
//   absl::StatusOr<v1::EmbedResponse> response = client.Embed(request, {.timeout = absl::Seconds(10)});
#ifndef LONGEMBED_CLIENT_CLIENT_H_
#define LONGEMBED_CLIENT_CLIENT_H_

#include <grpcpp/channel.h>

#include <memory>
#include <stop_token>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/channel.h"
#include "client/errors.h"
#include "longembed/v1/embedding.grpc.pb.h"

namespace longembed::client {

struct CallOptions {
  // Timeout of the whole call, including retries and the waits between them. The server gets the remaining time as its
  // deadline.
  absl::Duration timeout = absl::Minutes(5);
  // Cancels the call from any thread. The call then returns CANCELLED at once.
  std::stop_token stop = {};
};

// A client of one server. Multiple threads can call the methods of one Client without external synchronization.
//
// Errors: the server's errors, see errors.h. UNAVAILABLE and RESOURCE_EXHAUSTED are returned only after gRPC's retries
// are used up. DEADLINE_EXCEEDED: the timeout passed, including any waits that the server asked for. INVALID_ARGUMENT:
// the API key is not printable ASCII.
class Client {
 public:
  explicit Client(const ClientOptions& options);

  absl::StatusOr<v1::EmbedResponse> Embed(const v1::EmbedRequest& request, const CallOptions& options = {});
  absl::StatusOr<v1::ExplainResponse> Explain(const v1::ExplainRequest& request, const CallOptions& options = {});
  absl::StatusOr<v1::TokenizeResponse> Tokenize(const v1::TokenizeRequest& request, const CallOptions& options = {});
  absl::StatusOr<v1::ListModelsResponse> ListModels(const CallOptions& options = {});
  absl::StatusOr<v1::Model> GetModel(const v1::GetModelRequest& request, const CallOptions& options = {});

  // Returns true if grpc.health.v1 reports SERVING for `service`. "" means the server as a whole. The call is not
  // retried, so that a probe learns at once that no server answers.
  absl::StatusOr<bool> IsServing(const std::string& service, const CallOptions& options = {});

  // Gives stream.h access to the stub.
  v1::EmbeddingService::Stub& stub() { return *stub_; }
  // Adds the API key to a call. Errors: INVALID_ARGUMENT.
  absl::Status Authorize(grpc::ClientContext& context) const;

 private:
  // Makes one call through `invoke`, which has the signature (grpc::ClientContext*, Response*) -> grpc::Status.
  template <typename Response, typename Invoke>
  absl::StatusOr<Response> Call(const CallOptions& options, Invoke invoke);

  const std::string api_key_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::EmbeddingService::Stub> stub_;
};

}  // namespace longembed::client

#endif  // LONGEMBED_CLIENT_CLIENT_H_
