// Tests Explain, Tokenize, ListModels and GetModel over a real channel.
#include <gmock/gmock.h>

#include <algorithm>

#include "server/api/longembed/operations.h"
#include "tests/server/api/service_test.h"
#include "tests/testing/fake_call.h"

namespace longembed {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using v1::EmbedOptions;

TEST_F(ServiceTest, ExplainsWithoutEncoding) {
  v1::ExplainRequest request;
  request.add_inputs()->set_text(kTooLong);
  request.mutable_options()->set_truncate(EmbedOptions::START);
  grpc::ClientContext context;
  v1::ExplainResponse response;
  ASSERT_TRUE(stub_->Explain(&context, request, &response).ok());
  EXPECT_EQ(response.results(0).tokens(), 16u);
  EXPECT_EQ(response.results(0).truncated_tokens(), 6u);
  EXPECT_EQ(response.results(0).capacity(), 16u);
  EXPECT_EQ(response.results(0).sequences(0).content().start(), 6u);
  EXPECT_EQ(response.results(0).cost().attention_pairs(), 256u);
  EXPECT_THAT(encoder_.batches(), IsEmpty());
}

TEST_F(ServiceTest, TokenizesWithRangesInCodePoints) {
  v1::TokenizeRequest request;
  request.add_texts("é b");
  grpc::ClientContext context;
  v1::TokenizeResponse response;
  ASSERT_TRUE(stub_->Tokenize(&context, request, &response).ok());
  const auto& tokens = response.results(0).tokens();
  ASSERT_EQ(tokens.size(), 4);
  EXPECT_TRUE(tokens[0].special());
  EXPECT_EQ(tokens[1].range().start(), 0u);
  EXPECT_EQ(tokens[1].range().end(), 1u);
  EXPECT_EQ(tokens[2].range().end(), 3u);
  EXPECT_EQ(tokens[3].id(), 2u);
}

TEST_F(ServiceTest, TokenizesOnlySoMuchInACall) {
  v1::TokenizeRequest request;
  std::string words;
  for (int i = 0; i < 60; ++i) words += "a ";
  request.add_texts(words);
  request.add_texts(words);
  grpc::ClientContext context;
  v1::TokenizeResponse response;
  const grpc::Status status = stub_->Tokenize(&context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(),
              HasSubstr("texts[1]: has 60 tokens or more; the server's limit per call leaves 38"));
}

// A refusal that names no model would count under a series that begins with it, which rate() does not see.
TEST_F(ServiceTest, TokenizeKnowsItsModelEvenIfThePoolRefusesIt) {
  for (const std::string name : {"", "fake"}) {
    FakeCall call;
    const CallContext late = call.context(/*deadline=*/absl::UnixEpoch());
    v1::TokenizeRequest request;
    request.set_model(name);
    request.add_texts("a");
    v1::TokenizeResponse response;
    const auto operation = TokenizeMethod(server_.api()).make(late, request, response);
    absl::Status refused;
    operation->Start([&refused](const absl::Status& status) { refused = status; });
    EXPECT_TRUE(absl::IsDeadlineExceeded(refused)) << refused;
    EXPECT_EQ(operation->model(), "fake");
  }
}

TEST_F(ServiceTest, DescribesModels) {
  grpc::ClientContext list_context, get_context, unknown_context;
  v1::ListModelsResponse list;
  ASSERT_TRUE(stub_->ListModels(&list_context, {}, &list).ok());
  ASSERT_EQ(list.models_size(), 1);
  v1::GetModelRequest request;
  request.set_model("fake");
  v1::Model model;
  ASSERT_TRUE(stub_->GetModel(&get_context, request, &model).ok());
  EXPECT_EQ(model.trained_window(), 16u);
  EXPECT_EQ(model.prompts().at("query"), "query: ");
  EXPECT_EQ(model.limits().max_inputs(), 4u);
  EXPECT_EQ(model.recommended_extension().windows().tokens(), 12u);
  EXPECT_EQ(model.recommended_multi_vector_extension().windows().tokens(), 6u);
  EXPECT_EQ(model.recommendation_evidence().at("set"), "qmsum");
  EXPECT_EQ(model.trained_window_source(), "a test");
  EXPECT_EQ(model.similarity_function(), "dot");
  EXPECT_TRUE(model.add_eos_token());
  EXPECT_EQ(model.default_prompt_name(), "");
  request.set_model("other");
  EXPECT_EQ(stub_->GetModel(&unknown_context, request, &model).error_code(), grpc::NOT_FOUND);
}

TEST(PlainLimitTest, IsTheServersWhereThatIsLower) {
  for (const int64_t limit : {8, 100}) {
    FakeServer::Options options;
    options.config.limits.max_tokens_per_sequence = limit;
    FakeServer server(std::move(options));
    grpc::ClientContext context;
    v1::Model model;
    ASSERT_TRUE(v1::EmbeddingService::NewStub(server.Connect())->GetModel(&context, {}, &model).ok());
    EXPECT_EQ(model.plain_limit(), std::min<int64_t>(limit, 16));
  }
}

TEST(RotaryModelTest, ReportsItsRotaryParameters) {
  FakeServer::Options options{.manifest = FakeRopeManifest()};
  options.manifest->rotary_factor = 2.5;
  options.manifest->rotary_scaling = RotaryScaling{.kind = "llama3", .factors = {1, 2, 4, 8}};
  FakeServer server(std::move(options));
  grpc::ClientContext context;
  v1::Model model;
  ASSERT_TRUE(v1::EmbeddingService::NewStub(server.Connect())->GetModel(&context, {}, &model).ok());
  EXPECT_EQ(model.rotary_base(), 10000);
  EXPECT_EQ(model.rotary_factor(), 2.5);
  EXPECT_EQ(model.rotary_scaling(), "llama3");
}
}  // namespace
}  // namespace longembed
