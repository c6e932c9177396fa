// Tests token vectors over a real channel: longembed.v1's output TOKEN_VECTORS.
#include <gmock/gmock.h>

#include "tests/server/api/service_test.h"

namespace longembed {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using v1::EmbedOptions;

class TokenVectorsTest : public ::testing::Test {
 protected:
  TokenVectorsTest() : server_(Options()) {}

  // Queries have up to 6 tokens. In documents, words of two letters get no vector.
  static FakeServer::Options Options() {
    FakeServer::Options options;
    options.manifest = FakeManifest();
    options.manifest->pooling = Pooling::kNone;
    options.manifest->prompts = {{"query", "q "}, {"passage", "ddd "}};
    options.manifest->token_vectors = {
        .query_tokens = 6, .expansion_tokens = 6, .expansion_token = 50, .skipped_tokens = {12}};
    return options;
  }

  static v1::EmbedRequest Request(const std::string& text, EmbedOptions::InputType type) {
    v1::EmbedRequest request;
    request.add_inputs()->set_text(text);
    request.mutable_options()->set_input_type(type);
    request.mutable_options()->set_normalize(false);
    return request;
  }

  grpc::Status Embed(const v1::EmbedRequest& request, v1::EmbedResponse* response = nullptr) {
    grpc::ClientContext context;
    v1::EmbedResponse ignored;
    return stub_->Embed(&context, request, response == nullptr ? &ignored : response);
  }

  // Returns, for each vector, its first component (the token's id) and its range.
  static std::vector<std::array<int, 3>> TokensOf(const v1::EmbedResult& result) {
    std::vector<std::array<int, 3>> tokens;
    for (const v1::Embedding& embedding : result.embeddings()) {
      tokens.push_back({static_cast<int>(embedding.values(0)), static_cast<int>(embedding.range().start()),
                        static_cast<int>(embedding.range().end())});
    }
    return tokens;
  }

  FakeServer server_;
  const std::shared_ptr<grpc::Channel> channel_ = server_.Connect();
  const std::unique_ptr<v1::EmbeddingService::Stub> stub_ = v1::EmbeddingService::NewStub(channel_);
};

using Token = std::array<int, 3>;

TEST_F(TokenVectorsTest, DocumentsLeaveSkippedTokensOut) {
  v1::EmbedResponse response;
  const grpc::Status status = Embed(Request("a bb ccc", EmbedOptions::DOCUMENT), &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_THAT(TokensOf(response.results(0)),
              ElementsAre(Token{1, 0, 0}, Token{13, 0, 0}, Token{11, 0, 1}, Token{13, 2, 3}, Token{2, 3, 3}));
  EXPECT_EQ(response.results(0).tokens(), 6u);
  EXPECT_EQ(response.prompt(), "ddd ");
}

TEST_F(TokenVectorsTest, QueriesAreLengthenedAndSkipNothing) {
  v1::EmbedResponse response;
  ASSERT_TRUE(Embed(Request("bb", EmbedOptions::QUERY), &response).ok());
  EXPECT_THAT(TokensOf(response.results(0)), ElementsAre(Token{1, 0, 0}, Token{11, 0, 0}, Token{12, 0, 1},
                                                         Token{2, 1, 1}, Token{50, 1, 1}, Token{50, 1, 1}));
  EXPECT_EQ(response.results(0).tokens(), 6u);
}

TEST_F(TokenVectorsTest, ThePromptsNameAlsoChoosesQueryOrDocument) {
  v1::EmbedRequest request = Request("bb", EmbedOptions::QUERY);
  request.mutable_options()->set_prompt_name("query");
  v1::EmbedResponse response;
  ASSERT_TRUE(Embed(request, &response).ok());
  EXPECT_EQ(response.results(0).embeddings_size(), 6);
  request.mutable_options()->set_prompt_name("passage");
  ASSERT_TRUE(Embed(request, &response).ok());
  EXPECT_EQ(response.results(0).embeddings_size(), 3);  // "bb" is skipped.
}

TEST_F(TokenVectorsTest, ALongQueryIsRefusedOrCut) {
  v1::EmbedRequest request = Request("a a a a a a", EmbedOptions::QUERY);
  EXPECT_THAT(Embed(request).error_message(), HasSubstr("the limit of a query is 6"));
  request.mutable_options()->set_truncate(EmbedOptions::END);
  v1::EmbedResponse response;
  ASSERT_TRUE(Embed(request, &response).ok());
  EXPECT_EQ(response.results(0).embeddings_size(), 6);
  EXPECT_EQ(response.results(0).truncated_tokens(), 3u);
}

TEST_F(TokenVectorsTest, WindowsOfADocumentComeOneAfterTheOther) {
  v1::EmbedRequest request = Request("a ccc a ccc a ccc a ccc a ccc a ccc a ccc a ccc", EmbedOptions::DOCUMENT);
  request.mutable_options()->mutable_extension()->mutable_windows()->set_tokens(11);
  v1::EmbedResponse response;
  const grpc::Status status = Embed(request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.results(0).sequences_size(), 2);
  const std::vector<Token> tokens = TokensOf(response.results(0));
  ASSERT_EQ(tokens.size(), 22u);
  EXPECT_EQ(tokens[2], (Token{11, 0, 1}));
  EXPECT_EQ(tokens[10], (Token{2, 8, 8}));
  EXPECT_EQ(tokens[11], (Token{1, 8, 8}));
  EXPECT_EQ(tokens[13], (Token{11, 8, 9}));
}

TEST_F(TokenVectorsTest, DocumentsMayBePooledAndQueriesAreNot) {
  v1::EmbedRequest request = Request("a ccc a ccc", EmbedOptions::DOCUMENT);
  v1::EmbedResponse whole, pooled, query;
  ASSERT_TRUE(Embed(request, &whole).ok());
  ASSERT_EQ(whole.results(0).embeddings_size(), 7);
  request.mutable_options()->set_token_pooling(2);
  ASSERT_TRUE(Embed(request, &pooled).ok());
  ASSERT_EQ(pooled.results(0).embeddings_size(), 4);  // The first vector, and ceil(6 / 2) clusters.
  EXPECT_EQ(pooled.results(0).embeddings(0).values(0), whole.results(0).embeddings(0).values(0));
  EXPECT_NE(pooled.recipe(), whole.recipe());
  request.mutable_options()->set_input_type(EmbedOptions::QUERY);
  request.mutable_inputs(0)->set_text("bb");
  ASSERT_TRUE(Embed(request, &query).ok());
  EXPECT_EQ(query.results(0).embeddings_size(), 6);
  EXPECT_EQ(query.recipe(), pooled.recipe());
  for (const uint32_t factor : {0u, 1025u}) {
    request.mutable_options()->set_token_pooling(factor);
    EXPECT_THAT(Embed(request).error_message(), HasSubstr("options.token_pooling"));
    EXPECT_THAT(Embed(request).error_message(), HasSubstr("it must be 1 to 1024"));
  }
}

TEST_F(TokenVectorsTest, TheInputTypeIsRequired) {
  v1::EmbedRequest request = Request("a", EmbedOptions::UNSPECIFIED);
  EXPECT_THAT(Embed(request).error_message(), HasSubstr("options.input_type"));
  request.mutable_options()->set_prompt("q ");
  EXPECT_THAT(Embed(request).error_message(), HasSubstr("QUERY nor DOCUMENT"));
}

TEST_F(TokenVectorsTest, OneVectorIsRefused) {
  v1::EmbedRequest request = Request("a", EmbedOptions::QUERY);
  request.mutable_options()->set_output(EmbedOptions::ONE_VECTOR);
  const grpc::Status status = Embed(request);
  EXPECT_EQ(status.error_code(), grpc::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("options.output"));
  EXPECT_THAT(status.error_message(), HasSubstr("it supports: TOKEN_VECTORS"));
}

TEST_F(TokenVectorsTest, QueriesAreNotExtended) {
  v1::EmbedRequest request = Request("a", EmbedOptions::QUERY);
  request.mutable_options()->mutable_extension()->mutable_windows();
  EXPECT_TRUE(Embed(request).ok());
  request.mutable_options()->mutable_extension()->set_when(v1::Extension::ALWAYS);
  EXPECT_THAT(Embed(request).error_message(), HasSubstr("options.extension.when"));
}

TEST_F(TokenVectorsTest, AnAggregationIsRefused) {
  v1::EmbedRequest request = Request("a", EmbedOptions::DOCUMENT);
  request.mutable_options()->mutable_extension()->mutable_windows()->set_aggregation(v1::Extension::Windows::MAX);
  EXPECT_THAT(Embed(request).error_message(), HasSubstr("no effect with options.output TOKEN_VECTORS"));
}

TEST_F(TokenVectorsTest, GetModelReportsTheOutputAndTheQueryLimit) {
  grpc::ClientContext context;
  v1::Model model;
  ASSERT_TRUE(stub_->GetModel(&context, {}, &model).ok());
  EXPECT_THAT(model.outputs(), ElementsAre(EmbedOptions::TOKEN_VECTORS));
  EXPECT_EQ(model.dimensions(), 4u);
  EXPECT_EQ(model.max_query_tokens(), 6u);
}

}  // namespace
}  // namespace longembed
