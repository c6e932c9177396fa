// The fixture of service tests: a server with limits that are small enough to reach by hand.
#ifndef LONGEMBED_TESTS_SERVER_API_SERVICE_TEST_H_
#define LONGEMBED_TESTS_SERVER_API_SERVICE_TEST_H_

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "longembed/v1/embedding.grpc.pb.h"
#include "tests/testing/fake_server.h"

namespace longembed {

// Exceeds the model's window by 4 tokens.
inline constexpr char kTooLong[] = "a a a a a a a a a a a a a a a a a a a a";
inline constexpr char kNoMemory[] = "no-memory";

class ServiceTest : public ::testing::Test {
 protected:
  explicit ServiceTest(absl::Duration max_age = absl::Minutes(10)) : server_(Options(max_age)) {}

  static FakeServer::Options Options(absl::Duration max_age) {
    FakeServer::Options options{
        .model = {.max_queued_tokens = 100},
        .profiles = *ParseProfiles({{"highest", R"({"windows": {"tokens": 6, "aggregation": "MAX"}})"},
                                    {"groups", R"({"windows": {"tokens": 6, "vectors": 2}})"}}),
        .no_memory = kNoMemory};
    options.config.connections.max_age = max_age;
    options.manifest = FakeManifest();
    options.manifest->recommended_extension = R"({"windows": {"tokens": 12}})";
    options.manifest->recommended_multi_vector_extension = R"({"windows": {"tokens": 6}})";
    options.manifest->recommendation_evidence = {{"set", "qmsum"}};
    options.manifest->trained_window_source = "a test";
    options.manifest->similarity_function = "dot";
    options.manifest->add_eos_token = true;
    options.config.limits = {.max_request_bytes = 1 << 16,
                             .max_inputs_per_call = 4,
                             .max_tokens_per_input = 100,
                             .max_run_tokens_per_call = 200,
                             .max_vectors_per_call = 20,
                             .max_prompt_bytes = 30};
    return options;
  }

  grpc::Status Embed(const v1::EmbedRequest& request, v1::EmbedResponse* response = nullptr) {
    grpc::ClientContext context;
    v1::EmbedResponse ignored;
    return stub_->Embed(&context, request, response == nullptr ? &ignored : response);
  }

  static v1::EmbedRequest Request(const std::string& text) {
    v1::EmbedRequest request;
    request.add_inputs()->set_text(text);
    return request;
  }

  FakeServer server_;
  FakeEncoder& encoder_ = server_.encoder();
  const std::shared_ptr<grpc::Channel> channel_ = server_.Connect();
  const std::unique_ptr<v1::EmbeddingService::Stub> stub_ = v1::EmbeddingService::NewStub(channel_);
};

}  // namespace longembed

#endif  // LONGEMBED_TESTS_SERVER_API_SERVICE_TEST_H_
