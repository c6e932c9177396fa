// An EmbeddingService that answers Embed from a script of statuses, then with vectors that tell the text's length.
#ifndef LONGEMBED_TESTS_TESTING_SCRIPTED_SERVICE_H_
#define LONGEMBED_TESTS_TESTING_SCRIPTED_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include <deque>
#include <memory>
#include <mutex>
#include <string>

#include "longembed/v1/embedding.grpc.pb.h"

namespace longembed {

// On a free port of the loopback from construction to destruction.
class ScriptedService final : public v1::EmbeddingService::Service {
 public:
  struct Failure {
    grpc::Status status;
    std::string pushback_ms;  // Sent as trailing metadata unless empty.
  };

  ScriptedService() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~ScriptedService() override { server_->Shutdown(); }

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

  void FailNext(Failure failure) {
    const std::lock_guard lock(mutex_);
    failures_.push_back(std::move(failure));
  }
  int calls() const {
    const std::lock_guard lock(mutex_);
    return calls_;
  }
  std::string authorization() const {
    const std::lock_guard lock(mutex_);
    return authorization_;
  }

  grpc::Status Embed(grpc::ServerContext* context, const v1::EmbedRequest* request,
                     v1::EmbedResponse* response) override {
    const std::lock_guard lock(mutex_);
    ++calls_;
    const auto found = context->client_metadata().find("authorization");
    if (found != context->client_metadata().end()) authorization_.assign(found->second.data(), found->second.size());
    if (!failures_.empty()) {
      const Failure failure = failures_.front();
      failures_.pop_front();
      if (!failure.pushback_ms.empty()) context->AddTrailingMetadata("grpc-retry-pushback-ms", failure.pushback_ms);
      return failure.status;
    }
    for (const v1::Input& input : request->inputs()) {
      v1::EmbedResult& result = *response->add_results();
      if (input.text() == "bad") {
        result.mutable_error()->set_code(grpc::INVALID_ARGUMENT);
        result.mutable_error()->set_message("a \"bad\" text");
        continue;
      }
      result.add_embeddings()->add_values(static_cast<float>(input.text().size()));
      result.set_tokens(static_cast<uint32_t>(input.text().size()));
      result.add_sequences()->mutable_content()->set_end(static_cast<uint32_t>(input.text().size()));
    }
    return grpc::Status::OK;
  }

 private:
  mutable std::mutex mutex_;
  std::deque<Failure> failures_;
  int calls_ = 0;
  std::string authorization_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace longembed

#endif  // LONGEMBED_TESTS_TESTING_SCRIPTED_SERVICE_H_
