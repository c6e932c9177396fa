// Tests sparse vectors over a real channel: longembed.v1's output SPARSE and tei.v1's EmbedSparse.
#include <gmock/gmock.h>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "tei/v1/tei.grpc.pb.h"
#include "tests/server/api/service_test.h"

namespace longembed {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using v1::EmbedOptions;

// Serves a model with dense and sparse vectors, or with sparse vectors only if `pooling` is NONE.
class SparseServiceTest : public ::testing::Test {
 protected:
  explicit SparseServiceTest(Pooling pooling = Pooling::kMean, int64_t max_response_bytes = 64 << 20)
      : server_(Options(pooling, max_response_bytes)) {}

  static FakeServer::Options Options(Pooling pooling, int64_t max_response_bytes) {
    FakeServer::Options options{
        .profiles = *ParseProfiles({{"windows", R"({"windows": {"tokens": 6, "aggregation": "FIRST"}})"}})};
    options.manifest = FakeManifest();
    options.manifest->pooling = pooling;
    options.manifest->sparse_head = SparseHeadKind::kSpladeMax;
    options.config.limits.max_response_bytes = max_response_bytes;
    return options;
  }

  static v1::EmbedRequest Request(const std::string& text) {
    v1::EmbedRequest request;
    request.add_inputs()->set_text(text);
    request.mutable_options()->set_output(EmbedOptions::SPARSE);
    return request;
  }

  grpc::Status Embed(const v1::EmbedRequest& request, v1::EmbedResponse* response = nullptr) {
    grpc::ClientContext context;
    v1::EmbedResponse ignored;
    return stub_->Embed(&context, request, response == nullptr ? &ignored : response);
  }

  v1::Model GetModel() {
    grpc::ClientContext context;
    v1::Model model;
    EXPECT_TRUE(stub_->GetModel(&context, {}, &model).ok());
    return model;
  }

  FakeServer server_;
  const std::shared_ptr<grpc::Channel> channel_ = server_.Connect();
  const std::unique_ptr<v1::EmbeddingService::Stub> stub_ = v1::EmbeddingService::NewStub(channel_);
  const std::unique_ptr<tei::v1::Embed::Stub> tei_ = tei::v1::Embed::NewStub(channel_);
};

// The id of a token is 10 + its letters. Its weight is 100 times the id plus the number of tokens of its sequence.
TEST_F(SparseServiceTest, GivesWeightsByAscendingId) {
  v1::EmbedRequest request = Request("bb a bb");
  request.add_inputs()->set_text("ccc");
  v1::EmbedResponse response;
  const grpc::Status status = Embed(request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.results_size(), 2);
  ASSERT_EQ(response.results(0).embeddings_size(), 1);
  const v1::Embedding& first = response.results(0).embeddings(0);
  EXPECT_THAT(first.indices().ids(), ElementsAre(1, 2, 11, 12));
  EXPECT_THAT(first.values(), ElementsAre(105, 205, 1105, 1205));
  EXPECT_EQ(first.dimensions(), 100u);
  EXPECT_FALSE(first.has_range());
  EXPECT_EQ(response.results(0).tokens(), 5u);
  EXPECT_THAT(response.results(1).embeddings(0).indices().ids(), ElementsAre(1, 2, 13));
}

TEST_F(SparseServiceTest, WindowsBecomeOneByTheirMaximum) {
  for (const bool by_profile : {false, true}) {
    v1::EmbedRequest request = Request("a a a a a a a a a a a a a a a a bb");
    if (by_profile) {
      request.mutable_options()->mutable_extension()->set_profile("windows");
    } else {
      request.mutable_options()->mutable_extension()->mutable_windows()->set_tokens(6);
    }
    v1::EmbedResponse response;
    ASSERT_TRUE(Embed(request, &response).ok());
    EXPECT_EQ(response.results(0).sequences_size(), 5);
    EXPECT_THAT(response.results(0).embeddings(0).indices().ids(), ElementsAre(1, 2, 11, 12));
    EXPECT_THAT(response.results(0).embeddings(0).values(), ElementsAre(106, 206, 1106, 1206));
  }
}

TEST_F(SparseServiceTest, KeepsTheLargestWeights) {
  v1::EmbedRequest request = Request("ccc a");
  const auto recipe = [&] {
    v1::EmbedResponse response;
    EXPECT_TRUE(Embed(request, &response).ok());
    return response.recipe();
  };
  const std::string all = recipe();
  request.mutable_options()->set_max_terms(2);
  v1::EmbedResponse response;
  ASSERT_TRUE(Embed(request, &response).ok());
  EXPECT_THAT(response.results(0).embeddings(0).indices().ids(), ElementsAre(11, 13));
  EXPECT_NE(response.recipe(), all);
  request.mutable_options()->clear_max_terms();
  request.mutable_options()->set_output(EmbedOptions::ONE_VECTOR);
  EXPECT_NE(recipe(), all);
}

TEST_F(SparseServiceTest, WeightsComeInEveryEncodingButBits) {
  for (const auto& [encoding, bytes] :
       {std::pair{EmbedOptions::FLOAT16, 6}, {EmbedOptions::BFLOAT16, 6}, {EmbedOptions::INT8, 3}}) {
    v1::EmbedRequest request = Request("a");
    request.mutable_options()->set_encoding(encoding);
    v1::EmbedResponse response;
    ASSERT_TRUE(Embed(request, &response).ok());
    const v1::Embedding& embedding = response.results(0).embeddings(0);
    EXPECT_EQ(static_cast<int>(embedding.packed().size()), bytes);
    EXPECT_EQ(embedding.indices().ids_size(), 3);
    EXPECT_THAT(embedding.values(), IsEmpty());
    EXPECT_EQ(embedding.scale() > 0, encoding == EmbedOptions::INT8);
  }
}

TEST_F(SparseServiceTest, AModelWithDenseAndSparseVectorsGivesOneVectorByDefault) {
  v1::EmbedRequest request = Request("a");
  request.mutable_options()->clear_output();
  v1::EmbedResponse response;
  ASSERT_TRUE(Embed(request, &response).ok());
  EXPECT_FALSE(response.results(0).embeddings(0).has_indices());
  EXPECT_EQ(response.results(0).embeddings(0).dimensions(), 4u);
  const v1::Model model = GetModel();
  EXPECT_THAT(model.outputs(), ElementsAre(EmbedOptions::ONE_VECTOR, EmbedOptions::WINDOW_VECTORS,
                                           EmbedOptions::SPAN_VECTORS, EmbedOptions::SPARSE));
  EXPECT_EQ(model.dimensions(), 4u);
  EXPECT_EQ(model.sparse_dimensions(), 100u);
}

TEST_F(SparseServiceTest, StreamsAnswerTheSame) {
  grpc::ClientContext context;
  const auto stream = stub_->EmbedStream(&context);
  v1::EmbedStreamRequest request;
  *request.mutable_options() = Request("").options();
  for (const char* id : {"a", "bb"}) {
    request.set_id(id);
    request.mutable_input()->set_text(id);
    ASSERT_TRUE(stream->Write(request));
    request.clear_options();
  }
  stream->WritesDone();
  v1::EmbedStreamResponse response;
  int answers = 0;
  for (; stream->Read(&response); ++answers) {
    const auto token = static_cast<uint32_t>(10 + response.id().size());
    EXPECT_THAT(response.result().embeddings(0).indices().ids(), ElementsAre(1, 2, token));
  }
  EXPECT_EQ(answers, 2);
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(SparseServiceTest, AWeightThatIsNoNumberIsNeverSent) {
  v1::EmbedRequest request = Request(std::string(FakeEncoder::kBrokenToken - 10, 'x'));
  const grpc::Status status = Embed(request);
  EXPECT_EQ(status.error_code(), grpc::INTERNAL);
  EXPECT_THAT(status.error_message(), HasSubstr("inputs[0]"));
}

TEST_F(SparseServiceTest, NothingIsHeldAfterTheAnswers) {
  const int64_t before = server_.ledger().bytes();
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(Embed(Request("a bb ccc")).ok());
  for (int i = 0; i < 100 && server_.ledger().bytes() != before; ++i) absl::SleepFor(absl::Milliseconds(10));
  EXPECT_EQ(server_.ledger().bytes(), before);
}

TEST_F(SparseServiceTest, TeisEmbedSparse) {
  grpc::ClientContext context;
  tei::v1::EmbedSparseRequest request;
  request.set_inputs("bb a");
  tei::v1::EmbedSparseResponse response;
  const grpc::Status status = tei_->EmbedSparse(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.sparse_embeddings_size(), 4);
  EXPECT_EQ(response.sparse_embeddings(3).index(), 12u);
  EXPECT_EQ(response.sparse_embeddings(3).value(), 1204);
  EXPECT_EQ(response.metadata().compute_tokens(), 4u);

  grpc::ClientContext stream_context;
  const auto stream = tei_->EmbedSparseStream(&stream_context);
  for (int i = 0; i < 2; ++i) stream->Write(request);
  stream->WritesDone();
  int answers = 0;
  for (tei::v1::EmbedSparseResponse answer; stream->Read(&answer); ++answers) {
    EXPECT_EQ(answer.sparse_embeddings_size(), 4);
  }
  EXPECT_EQ(answers, 2);
  EXPECT_TRUE(stream->Finish().ok());
}

// Refused options, with the field of the error.
struct Refused {
  const char* name;
  void (*spoil)(EmbedOptions& options);
  const char* field;
  const char* said;
};

class RefusedWithSparseTest : public SparseServiceTest, public ::testing::WithParamInterface<Refused> {};

TEST_P(RefusedWithSparseTest, IsRefusedByName) {
  v1::EmbedRequest request = Request("a");
  GetParam().spoil(*request.mutable_options());
  const grpc::Status status = Embed(request);
  EXPECT_EQ(status.error_code(), grpc::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr(GetParam().said));
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  google::rpc::BadRequest bad_request;
  for (const auto& any : details.details()) any.UnpackTo(&bad_request);
  ASSERT_EQ(bad_request.field_violations_size(), 1);
  EXPECT_EQ(bad_request.field_violations(0).field(), GetParam().field);
}

INSTANTIATE_TEST_SUITE_P(
    All, RefusedWithSparseTest,
    ::testing::Values(
        Refused{"Dimensions", [](auto& o) { o.set_dimensions(2); }, "options.dimensions", "max_terms"},
        Refused{"Normalize", [](auto& o) { o.set_normalize(true); }, "options.normalize", "as trained"},
        Refused{"Binary", [](auto& o) { o.set_encoding(EmbedOptions::BINARY); }, "options.encoding", "INT8"},
        Refused{"Spans", [](auto& o) { o.mutable_spans()->mutable_sentences(); }, "options.spans", "SPAN_VECTORS"},
        Refused{
            "Mean",
            [](auto& o) { o.mutable_extension()->mutable_windows()->set_aggregation(v1::Extension::Windows::MEAN); },
            "options.extension.windows.aggregation", "is MEAN"},
        Refused{
            "First",
            [](auto& o) { o.mutable_extension()->mutable_windows()->set_aggregation(v1::Extension::Windows::FIRST); },
            "options.extension.windows.aggregation", "maximum"},
        Refused{"NoTerms", [](auto& o) { o.set_max_terms(0); }, "options.max_terms", "is 0"},
        Refused{"ManyTerms", [](auto& o) { o.set_max_terms(101); }, "options.max_terms", "100"},
        Refused{"TermsOfAVector",
                [](auto& o) {
                  o.set_output(EmbedOptions::ONE_VECTOR);
                  o.set_max_terms(2);
                },
                "options.max_terms", "SPARSE"}),
    [](const auto& info) { return info.param.name; });

TEST_F(SparseServiceTest, TheMaximumMayBeNamed) {
  v1::EmbedRequest request = Request("a");
  request.mutable_options()->set_normalize(false);
  request.mutable_options()->mutable_extension()->mutable_windows()->set_aggregation(v1::Extension::Windows::MAX);
  EXPECT_TRUE(Embed(request).ok());
}

class SparseOnlyTest : public SparseServiceTest {
 protected:
  SparseOnlyTest() : SparseServiceTest(Pooling::kNone) {}
};

TEST_F(SparseOnlyTest, GivesItsOnlyOutputByDefault) {
  v1::EmbedRequest request = Request("a");
  request.mutable_options()->clear_output();
  v1::EmbedResponse response;
  ASSERT_TRUE(Embed(request, &response).ok());
  EXPECT_THAT(response.results(0).embeddings(0).indices().ids(), ElementsAre(1, 2, 11));
  const v1::Model model = GetModel();
  EXPECT_THAT(model.outputs(), ElementsAre(EmbedOptions::SPARSE));
  EXPECT_EQ(model.pooling(), v1::Model::NONE);
  EXPECT_EQ(model.dimensions(), 0u);
  EXPECT_THAT(model.trained_dimensions(), IsEmpty());
}

TEST_F(SparseOnlyTest, RefusesOtherOutputsByName) {
  for (const auto output : {EmbedOptions::ONE_VECTOR, EmbedOptions::WINDOW_VECTORS, EmbedOptions::SPAN_VECTORS}) {
    v1::EmbedRequest request = Request("a");
    request.mutable_options()->set_output(output);
    const grpc::Status status = Embed(request);
    EXPECT_EQ(status.error_code(), grpc::INVALID_ARGUMENT);
    EXPECT_THAT(status.error_message(), HasSubstr("options.output"));
    EXPECT_THAT(status.error_message(), HasSubstr(EmbedOptions::Output_Name(output)));
    EXPECT_THAT(status.error_message(), HasSubstr("it supports: SPARSE"));
  }
}

TEST_F(SparseOnlyTest, TeisDenseMethodsAreNotOffered) {
  grpc::ClientContext context;
  tei::v1::EmbedRequest request;
  request.set_inputs("a");
  tei::v1::EmbedResponse response;
  const grpc::Status status = tei_->Embed(&context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::UNIMPLEMENTED);
  EXPECT_THAT(status.error_message(), HasSubstr("dense vectors"));
}

class SmallAnswersTest : public SparseServiceTest {
 protected:
  SmallAnswersTest() : SparseServiceTest(Pooling::kMean, /*max_response_bytes=*/400) {}
};

// A weight takes 8 bytes, and each text has three weights.
TEST_F(SmallAnswersTest, AnswersBeyondTheLimitAreRefused) {
  v1::EmbedRequest request = Request("a");
  EXPECT_TRUE(Embed(request).ok());
  for (int i = 1; i < 18; ++i) request.add_inputs()->set_text("a");
  const grpc::Status status = Embed(request);
  EXPECT_EQ(status.error_code(), grpc::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("would be answered with 432 bytes"));
}

TEST_F(ServiceTest, AModelWithoutASparseHeadListsItsOutputs) {
  v1::EmbedRequest request = Request("a");
  request.mutable_options()->set_output(EmbedOptions::SPARSE);
  const grpc::Status status = Embed(request);
  EXPECT_EQ(status.error_code(), grpc::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("SPARSE"));
  EXPECT_THAT(status.error_message(), HasSubstr("it supports: ONE_VECTOR, WINDOW_VECTORS, SPAN_VECTORS"));
}

}  // namespace
}  // namespace longembed
