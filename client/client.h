// A client of longembed.v1.EmbeddingService: blocking calls with retries and errors in words.
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
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/retry.h"
#include "longembed/v1/embedding.grpc.pb.h"

namespace longembed::client {

struct ClientOptions {
  std::string server = "127.0.0.1:50051";  // HOST:PORT, or any target that gRPC resolves.
  bool tls = false;
  std::string root_certificates;   // PEM; empty = the system's. With tls.
  std::string client_certificate;  // PEM, with client_key: for servers that ask for one (mTLS).
  std::string client_key;
  std::string api_key;  // Sent as "authorization: Bearer KEY" where not empty.
  RetryPolicy retry;
};

struct CallOptions {
  // For all attempts together; the server sees what is left of it as the deadline.
  absl::Duration timeout = absl::Minutes(5);
};

// Multiple threads can call the methods of one Client without external synchronization.
//
// Errors are the server's, with its message and, where that does not say so already, the fields at fault. UNAVAILABLE
// and overload with a pushback come back only after the retries that the policy and the timeout allow.
class Client {
 public:
  explicit Client(const ClientOptions& options);

  absl::StatusOr<v1::EmbedResponse> Embed(const v1::EmbedRequest& request, const CallOptions& options = {});
  absl::StatusOr<v1::ExplainResponse> Explain(const v1::ExplainRequest& request, const CallOptions& options = {});
  absl::StatusOr<v1::TokenizeResponse> Tokenize(const v1::TokenizeRequest& request, const CallOptions& options = {});
  absl::StatusOr<v1::ListModelsResponse> ListModels(const CallOptions& options = {});
  absl::StatusOr<v1::Model> GetModel(const v1::GetModelRequest& request, const CallOptions& options = {});

  // Whether grpc.health.v1 says SERVING of a service; "" is the server as a whole. Neither tried again nor
  // waited for: a probe is to say at once that there is no server.
  absl::StatusOr<bool> IsServing(const std::string& service, const CallOptions& options = {});

  // For stream.h.
  v1::EmbeddingService::Stub& stub() { return *stub_; }
  void Authorize(grpc::ClientContext& context) const;
  const RetryPolicy& retry_policy() const { return options_.retry; }

 private:
  template <typename Request, typename Response>
  using Method = grpc::Status (v1::EmbeddingService::Stub::*)(grpc::ClientContext*, const Request&, Response*);

  template <typename Request, typename Response>
  absl::StatusOr<Response> Call(Method<Request, Response> method, const Request& request, const CallOptions& options);

  const ClientOptions options_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::EmbeddingService::Stub> stub_;
};

// The server's words, and the fields at fault where these do not name them.
absl::Status ToStatus(const grpc::Status& status);

}  // namespace longembed::client

#endif  // LONGEMBED_CLIENT_CLIENT_H_
