// Tests tei.v1 over a real channel.
#include <gmock/gmock.h>

#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "model/errors/errors.h"
#include "tei/v1/tei.grpc.pb.h"
#include "tests/server/api/service_test.h"

namespace longembed {
namespace {

using ::testing::HasSubstr;

class TeiTest : public ServiceTest {
 protected:
  using ServiceTest::ServiceTest;

  static tei::v1::EmbedRequest TeiRequest(const std::string& text) {
    tei::v1::EmbedRequest request;
    request.set_inputs(text);
    request.set_normalize(false);
    return request;
  }

  std::unique_ptr<tei::v1::Embed::Stub> tei_ = tei::v1::Embed::NewStub(channel_);
};

// TEI's clients expect FAILED_PRECONDITION. The server's log and metrics contain the actual status.
TEST_F(TeiTest, TheServersFaultHasTeisCodeForTheClientOnly) {
  encoder_.FailWith(EncoderFailed("the device fell off the bus"));
  {
    grpc::ClientContext context;
    tei::v1::EmbedResponse response;
    EXPECT_EQ(tei_->Embed(&context, TeiRequest("a"), &response).error_code(), grpc::FAILED_PRECONDITION);
  }
  {
    grpc::ClientContext context;
    const auto stream = tei_->EmbedStream(&context);
    stream->Write(TeiRequest("a"));
    tei::v1::EmbedResponse response;
    EXPECT_FALSE(stream->Read(&response));
    EXPECT_EQ(stream->Finish().error_code(), grpc::FAILED_PRECONDITION);
  }
  for (const char* method : {"tei.Embed", "tei.EmbedStream"}) {
    EXPECT_THAT(server_.metrics().Scrape(),
                HasSubstr(absl::StrCat("longembed_requests_total{code=\"INTERNAL\",method=\"", method,
                                       "\",model=\"fake\"} 1")));
  }
}

// Errors of longembed.v1 name fields and remedies that tei.v1 does not have.
TEST_F(TeiTest, ErrorsNameTheFieldsOfTei) {
  const auto refused = [this](const tei::v1::EmbedRequest& request) {
    grpc::ClientContext context;
    tei::v1::EmbedResponse response;
    const grpc::Status status = tei_->Embed(&context, request, &response);
    EXPECT_EQ(status.error_code(), grpc::INVALID_ARGUMENT);
    google::rpc::Status details;
    google::rpc::BadRequest bad;
    EXPECT_TRUE(details.ParseFromString(status.error_details()) && details.details(0).UnpackTo(&bad));
    EXPECT_EQ(status.error_message(), bad.field_violations(0).description());
    EXPECT_THAT(status.error_message(), ::testing::Not(HasSubstr("options.")));
    return std::pair(bad.field_violations(0).field(), status.error_message());
  };
  std::string text;
  for (int i = 0; i < 30; ++i) text += "a ";
  const auto [field, message] = refused(TeiRequest(text));
  EXPECT_EQ(field, "inputs");
  EXPECT_THAT(message, ::testing::StartsWith("inputs: has "));
  EXPECT_THAT(message, HasSubstr("use windows (tei.profile in the server's config); to cut it, set truncate"));
  tei::v1::EmbedRequest cut = TeiRequest("a");
  cut.set_dimensions(5);
  EXPECT_EQ(refused(cut).first, "dimensions");
}

// Decoding takes much more memory than the ids and the text.
TEST_F(TeiTest, DecodingIsOnTheLedger) {
  const auto stub = tei::v1::Tokenize::NewStub(channel_);
  const auto decode = [&stub](int ids) {
    grpc::ClientContext context;
    tei::v1::DecodeRequest request;
    for (int i = 0; i < ids; ++i) request.add_ids(3);
    tei::v1::DecodeResponse response;
    return stub->Decode(&context, request, &response);
  };
  const auto most = server_.host().ledger.BeginMessage("someone");
  ASSERT_TRUE(most->Hold(Memory::kRequests, 3 << 20).ok());  // Of 4 MiB.
  EXPECT_TRUE(decode(100).ok());
  const grpc::Status refused = decode(20'000);
  EXPECT_EQ(refused.error_code(), grpc::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.error_message(), HasSubstr("bytes of memory"));
}

class OldTeiStreamTest : public TeiTest {
 protected:
  OldTeiStreamTest() : TeiTest(absl::Milliseconds(200)) {}
};

TEST_F(OldTeiStreamTest, AnOldStreamEndsWithUnavailable) {
  grpc::ClientContext context;
  const auto stream = tei_->EmbedStream(&context);
  tei::v1::EmbedResponse response;
  int answered = 0;
  for (const absl::Time end = absl::Now() + absl::Seconds(10); absl::Now() < end; ++answered) {
    if (!stream->Write(TeiRequest("a")) || !stream->Read(&response)) break;
  }
  EXPECT_GT(answered, 0);
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("connections.max_age, which is 200ms"));
}

TEST_F(TeiTest, AnswersInOrder) {
  grpc::ClientContext context;
  const auto stream = tei_->EmbedStream(&context);
  tei::v1::EmbedResponse response;
  for (int first = 0; first < 200; first += 20) {  // The queue accepts at most 100 tokens, and each message has 3.
    for (int i = first; i < first + 20; ++i)
      stream->Write(TeiRequest(std::string(static_cast<size_t>(1 + i % 9), 'a')));
    for (int i = first; i < first + 20; ++i) {
      ASSERT_TRUE(stream->Read(&response)) << i;
      // The sum of the three tokens.
      ASSERT_EQ(response.embeddings(0), static_cast<float>(1 + 10 + 1 + i % 9 + 2)) << i;
    }
  }
  stream->WritesDone();
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(TeiTest, ABrokenMessageEndsTheStreamAfterEarlierAnswers) {
  grpc::ClientContext context;
  const auto stream = tei_->EmbedStream(&context);
  stream->Write(TeiRequest("a"));
  stream->Write(TeiRequest(""));
  for (int i = 0; i < 20; ++i) stream->Write(TeiRequest("never answered"));
  tei::v1::EmbedResponse response;
  EXPECT_TRUE(stream->Read(&response));
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(stream->Finish().error_code(), grpc::INVALID_ARGUMENT);
}

TEST_F(TeiTest, ACancelledStreamLeavesNothingBehind) {
  encoder_.CloseGate();
  for (int round = 0; round < 5; ++round) {
    grpc::ClientContext context;
    const auto stream = tei_->EmbedStream(&context);
    for (int i = 0; i < 10; ++i) stream->Write(TeiRequest("a b c"));
    context.TryCancel();
    EXPECT_EQ(stream->Finish().error_code(), grpc::CANCELLED);
  }
  encoder_.OpenGate();
  EXPECT_TRUE(server_.lane().WaitIdle(absl::Seconds(10)));
}

// Answers are not read and no batch ends. The server must read some messages, and leave the others to the client's flow
// control.
TEST_F(TeiTest, AStreamIsReadNoFurtherThanItIsAnswered) {
  encoder_.CloseGate();
  grpc::ClientContext context;
  const auto stream = tei_->EmbedStream(&context);
  // 3 tokens each. The queue would accept no more than 100 tokens.
  for (int i = 0; i < 90; ++i) stream->Write(TeiRequest("a"));
  encoder_.AwaitCalls(1);
  absl::SleepFor(absl::Milliseconds(50));
  EXPECT_LE(server_.lane().queue_state().jobs, 64u);
  context.TryCancel();
  encoder_.OpenGate();
  stream->Finish();
}

// Tests tei.v1 with a configuration that names an extension for long texts.
class ExtendedTeiTest : public ::testing::Test {
 protected:
  static FakeServer::Options Options(const TeiConfig& tei) {
    FakeServer::Options options{.profiles = *ParseProfiles({{"windows", R"({"windows": {"tokens": 6, "overlap": 1}})"},
                                                            {"groups", R"({"windows": {"tokens": 6, "vectors": 2}})"},
                                                            {"rotary", R"({"yarn": {}})"}})};
    options.config.tei = tei;
    options.config.limits.max_tokens_per_input = 100;
    return options;
  }

  void Serve(const TeiConfig& tei) {
    server_ = std::make_unique<FakeServer>(Options(tei));
    channel_ = server_->Connect();
    tei_ = tei::v1::Embed::NewStub(channel_);
  }

  tei::v1::EmbedResponse Embed(const tei::v1::EmbedRequest& request) {
    grpc::ClientContext context;
    tei::v1::EmbedResponse response;
    const grpc::Status status = tei_->Embed(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }

  // Returns the vectors of longembed.v1 under the profile "windows".
  v1::EmbedResponse Expected(const std::string& text, const std::string& prompt_name) {
    v1::EmbedRequest request;
    request.add_inputs()->set_text(text);
    request.mutable_options()->mutable_extension()->set_profile("windows");
    if (!prompt_name.empty()) request.mutable_options()->set_prompt_name(prompt_name);
    grpc::ClientContext context;
    v1::EmbedResponse response;
    EXPECT_TRUE(v1::EmbeddingService::NewStub(channel_)->Embed(&context, request, &response).ok());
    return response;
  }

  std::unique_ptr<FakeServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<tei::v1::Embed::Stub> tei_;
};

std::vector<float> ValuesOf(const google::protobuf::RepeatedField<float>& values) {
  return {values.begin(), values.end()};
}

TEST_F(ExtendedTeiTest, ALongTextHasTheVectorOfItsProfile) {
  for (const TeiConfig& tei : {TeiConfig{.profile = "windows"}, TeiConfig{.model = "fake:windows"},
                               TeiConfig{.extension = R"({"windows": {"tokens": "6", "overlap": "1"}})"}}) {
    Serve(tei);
    for (const std::string prompt_name : {"", "query"}) {
      const v1::EmbedResponse expected = Expected(kTooLong, prompt_name);
      for (const bool truncate : {false, true}) {
        tei::v1::EmbedRequest request;
        request.set_inputs(kTooLong);
        request.set_truncate(truncate);
        if (!prompt_name.empty()) request.set_prompt_name(prompt_name);
        const tei::v1::EmbedResponse response = Embed(request);
        EXPECT_EQ(ValuesOf(response.embeddings()), ValuesOf(expected.results(0).embeddings(0).values()));
        EXPECT_EQ(response.metadata().compute_tokens(), expected.results(0).tokens());
      }
    }
  }
}

TEST_F(ExtendedTeiTest, RequestsWithoutAPromptHaveTheConfiguredOne) {
  Serve({.default_prompt = "query", .profile = "windows"});
  for (const std::string prompt_name : {"", "query", "passage"}) {
    tei::v1::EmbedRequest request;
    request.set_inputs("a b");
    if (!prompt_name.empty()) request.set_prompt_name(prompt_name);
    const v1::EmbedResponse expected = Expected("a b", prompt_name.empty() ? "query" : prompt_name);
    EXPECT_EQ(ValuesOf(Embed(request).embeddings()), ValuesOf(expected.results(0).embeddings(0).values()));
  }
  EXPECT_NE(ValuesOf(Expected("a b", "query").results(0).embeddings(0).values()),
            ValuesOf(Expected("a b", "").results(0).embeddings(0).values()));
}

// With an extension, truncation cuts only at the server's own limit.
TEST_F(ExtendedTeiTest, TruncationCutsAtTheServersLimit) {
  Serve({.profile = "windows"});
  std::string text;
  for (int i = 0; i < 150; ++i) text += "a ";
  tei::v1::EmbedRequest request;
  request.set_inputs(text);
  grpc::ClientContext context;
  tei::v1::EmbedResponse refused;
  EXPECT_THAT(tei_->Embed(&context, request, &refused).error_message(), HasSubstr("takes at most 100"));
  request.set_truncate(true);
  EXPECT_EQ(Embed(request).metadata().compute_tokens(), 100u);
}

TEST_F(ExtendedTeiTest, InfoReportsTheLimitUnderTheExtension) {
  for (const auto& [tei, most] : {std::pair{TeiConfig{}, 16u}, std::pair{TeiConfig{.profile = "windows"}, 100u},
                                  std::pair{TeiConfig{.extension = R"({"grouped": {"factor": 2}})"}, 32u},
                                  std::pair{TeiConfig{.extension = R"({"grouped": {}})"}, 100u}}) {
    Serve(tei);
    grpc::ClientContext context;
    tei::v1::InfoResponse info;
    ASSERT_TRUE(tei::v1::Info::NewStub(channel_)->Info(&context, {}, &info).ok());
    EXPECT_EQ(info.max_input_length(), most);
  }
}

// The answer has the special tokens and the prompt once, and each token of the text from one window.
TEST_F(ExtendedTeiTest, EmbedAllGivesEachTokenOnce) {
  Serve({.profile = "windows"});
  tei::v1::EmbedAllRequest request;
  std::vector<float> expected{1, 16};  // "query:" has 6 letters.
  for (int letters : {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2}) {
    request.mutable_inputs()->append(static_cast<size_t>(letters), 'a').push_back(' ');
    expected.push_back(static_cast<float>(10 + letters));
  }
  expected.push_back(2);
  request.set_prompt_name("query");
  grpc::ClientContext context;
  tei::v1::EmbedAllResponse response;
  const grpc::Status status = tei_->EmbedAll(&context, request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  std::vector<float> tokens;
  for (const auto& token : response.token_embeddings()) {
    tokens.push_back(token.embeddings(0));
    EXPECT_EQ(token.embeddings(2), 6);  // The tokens of its window.
  }
  EXPECT_EQ(tokens, expected);
  EXPECT_EQ(response.metadata().compute_tokens(), expected.size());
}

TEST_F(ExtendedTeiTest, ConfigsThatDoNotFitTheModelAreRefused) {
  FakeServer server(Options({}));
  ModelRegistry none;
  struct Bad {
    TeiConfig tei;
    const char* said;
  };
  const Profiles profiles = Options({}).profiles;
  for (const Bad& bad :
       {Bad{{.profile = "rotary"}, "tei.profile does not fit the model fake: yarn"},
        Bad{{.extension = R"({"yarn": {}})"}, "tei.extension does not fit the model fake: yarn"},
        Bad{{.extension = R"({"windoes": {}})"}, "tei.extension: "},
        Bad{{.profile = "groups"}, "tei.profile has windows.vectors, which is 2"},
        Bad{{.profile = "other"}, "tei.profile is \"other\""},
        Bad{{.model = "fake:windows", .profile = "windows"}, "tei.model names the profile \"windows\"; leave out"},
        Bad{{.model = "fake:nope"}, "the model fake has the profiles: groups, windows"}}) {
    const auto made = TeiServices::Make(bad.tei, server.api(), profiles, server.host());
    EXPECT_THAT(std::string(made.status().message()), HasSubstr(bad.said));
  }
  const ApiContext without{server.api().models, server.api().pool, server.api().clock, server.api().limits};
  const ApiContext of_none{none, without.pool, without.clock, without.limits};
  for (const auto& [tei, said] : {std::pair{TeiConfig{.profile = "windows"}, "tei.profile is set, but"},
                                  std::pair{TeiConfig{.extension = "{\"windows\":{}}"}, "tei.extension is set, but"}}) {
    const auto made = TeiServices::Make(tei, of_none, profiles, server.host());
    EXPECT_THAT(std::string(made.status().message()), HasSubstr(said));
  }
}
}  // namespace
}  // namespace longembed
