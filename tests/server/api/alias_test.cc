// Tests model aliases NAME:PROFILE over a real channel, wherever a request names a model.
#include <gmock/gmock.h>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "tests/server/api/service_test.h"

namespace longembed {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

v1::EmbedRequest UnderAlias(const std::string& alias) {
  v1::EmbedRequest request;
  request.add_inputs()->set_text(kTooLong);
  request.mutable_options()->set_model(alias);
  return request;
}

// Returns the field that the error's details name.
std::string FieldOf(const grpc::Status& status) {
  google::rpc::Status details;
  details.ParseFromString(status.error_details());
  google::rpc::BadRequest bad;
  for (const auto& detail : details.details()) {
    if (detail.UnpackTo(&bad)) return bad.field_violations(0).field();
  }
  return "";
}

TEST_F(ServiceTest, AnAliasEmbedsAsItsProfileDoes) {
  v1::EmbedRequest by_field = UnderAlias("fake");
  by_field.mutable_options()->mutable_extension()->set_profile("highest");
  v1::EmbedResponse expected, actual;
  ASSERT_TRUE(Embed(by_field, &expected).ok());
  const grpc::Status status = Embed(UnderAlias("fake:highest"), &actual);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(actual.recipe(), expected.recipe());
  EXPECT_EQ(actual.model(), "fake");
  EXPECT_GT(actual.results(0).sequences_size(), 1);
  EXPECT_EQ(actual.results(0).SerializeAsString(), expected.results(0).SerializeAsString());
}

TEST_F(ServiceTest, AStreamExplainAndTokenizeTakeAliases) {
  {
    grpc::ClientContext context;
    const auto stream = stub_->EmbedStream(&context);
    v1::EmbedStreamRequest request;
    request.set_id("a");
    request.mutable_options()->set_model("fake:highest");
    request.mutable_input()->set_text(kTooLong);
    stream->Write(request);
    stream->WritesDone();
    v1::EmbedStreamResponse response;
    ASSERT_TRUE(stream->Read(&response)) << stream->Finish().error_message();
    EXPECT_EQ(response.model(), "fake");
    EXPECT_GT(response.result().sequences_size(), 1);
  }
  {
    grpc::ClientContext context;
    v1::ExplainRequest request;
    request.mutable_options()->set_model("fake:highest");
    request.add_inputs()->set_text(kTooLong);
    v1::ExplainResponse response;
    ASSERT_TRUE(stub_->Explain(&context, request, &response).ok());
    EXPECT_GT(response.results(0).sequences_size(), 1);
  }
  grpc::ClientContext context;
  v1::TokenizeRequest request;
  request.set_model("fake:highest");
  request.add_texts("a");
  v1::TokenizeResponse response;
  ASSERT_TRUE(stub_->Tokenize(&context, request, &response).ok());
  EXPECT_EQ(response.model(), "fake");
}

TEST_F(ServiceTest, AnExtensionBesideAnAliasIsAContradiction) {
  v1::EmbedRequest request = UnderAlias("fake:highest");
  request.mutable_options()->mutable_extension();
  const grpc::Status status = Embed(request);
  EXPECT_EQ(status.error_code(), grpc::INVALID_ARGUMENT);
  EXPECT_EQ(FieldOf(status), "options.extension");
  EXPECT_THAT(status.error_message(), HasSubstr("contradicts options.model, which names the profile \"highest\""));
  request.mutable_options()->mutable_extension()->set_profile("highest");
  EXPECT_EQ(Embed(request).error_code(), grpc::INVALID_ARGUMENT);
}

// Groups of windows are only valid with window vectors.
TEST_F(ServiceTest, AnInvalidProfileIsReportedForTheAlias) {
  const grpc::Status status = Embed(UnderAlias("fake:groups"));
  EXPECT_EQ(status.error_code(), grpc::INVALID_ARGUMENT);
  EXPECT_EQ(FieldOf(status), "options.model");
  EXPECT_THAT(status.error_message(), HasSubstr("WINDOW_VECTORS, not with "));
}

TEST_F(ServiceTest, AnUnknownProfileIsNotFound) {
  const grpc::Status status = Embed(UnderAlias("fake:nope"));
  EXPECT_EQ(status.error_code(), grpc::NOT_FOUND);
  EXPECT_THAT(status.error_message(), HasSubstr("the model fake has the profiles: groups, highest"));
  grpc::ClientContext context;
  v1::GetModelRequest request;
  request.set_model("fake:nope");
  v1::Model model;
  EXPECT_EQ(stub_->GetModel(&context, request, &model).error_code(), grpc::NOT_FOUND);
}

TEST_F(ServiceTest, AModelListsItsAliases) {
  grpc::ClientContext get_context, list_context;
  v1::GetModelRequest request;
  request.set_model("fake:highest");
  v1::Model model;
  ASSERT_TRUE(stub_->GetModel(&get_context, request, &model).ok());
  EXPECT_EQ(model.name(), "fake");
  EXPECT_EQ(model.profile(), "highest");
  EXPECT_THAT(model.aliases(), ElementsAre("fake:groups", "fake:highest"));
  v1::ListModelsResponse list;
  ASSERT_TRUE(stub_->ListModels(&list_context, {}, &list).ok());
  EXPECT_THAT(list.models(0).aliases(), ElementsAre("fake:groups", "fake:highest"));
  EXPECT_EQ(list.models(0).profile(), "");
}

}  // namespace
}  // namespace longembed
