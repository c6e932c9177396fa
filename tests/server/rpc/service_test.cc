// The service over a real gRPC server and channel, with a fake model behind it.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <map>
#include <thread>

#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "longembed/v1/embedding.grpc.pb.h"
#include "server/rpc/grpc_server.h"
#include "tei/v1/tei.grpc.pb.h"
#include "tests/testing/fake_encoder.h"
#include "tests/testing/fake_tokenizer.h"

namespace longembed {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using v1::EmbedOptions;

constexpr std::string_view kNoMemory = "no-memory";

class ServiceTest : public ::testing::Test {
 protected:
  explicit ServiceTest(absl::Duration max_age = absl::Minutes(10)) {
    config_.connections.max_age = max_age;
    auto encoder = std::make_unique<FakeEncoder>();
    encoder_ = encoder.get();
    auto model = std::make_unique<ServedModel>(
        "fake", std::make_unique<const Model>(Model{FakeManifest(), std::make_unique<FakeTokenizer>(kNoMemory)}),
        std::move(encoder), Device{scheduler_, admission_}, ServedModelOptions{.max_queued_tokens = 100}, metrics_);
    EXPECT_TRUE(models_.Add(std::move(model)).ok());
    config_.listen = "127.0.0.1:0";
    config_.limits = {.max_request_bytes = 1 << 16,
                      .max_inputs_per_call = 4,
                      .max_tokens_per_input = 100,
                      .max_run_tokens_per_call = 200,
                      .max_vectors_per_call = 20,
                      .max_prompt_bytes = 30};
    server_ = *GrpcServer::Start(config_, {.models = models_,
                                           .pool = pool_,
                                           .clock = clock_,
                                           .metrics = metrics_,
                                           .limits = config_.limits,
                                           .profiles = profiles_,
                                           .pending = pending_});
    channel_ = grpc::CreateChannel(absl::StrCat("127.0.0.1:", server_->port()), grpc::InsecureChannelCredentials());
    stub_ = v1::EmbeddingService::NewStub(channel_);
  }

  ~ServiceTest() override {
    encoder_->OpenGate();
    server_->Shutdown(absl::Seconds(5));
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

  RealClock clock_;
  Admission admission_{{}, clock_};  // Before the scheduler, whose jobs give back what they hold of it.
  PendingCalls pending_{1 << 20};
  Scheduler scheduler_{{.workers = 1}, clock_};
  Metrics metrics_{{}};
  ModelRegistry models_;
  ServerConfig config_;
  const Profiles profiles_ = *ParseProfiles({{"highest", R"({"windows": {"tokens": 6, "aggregation": "MAX"}})"}});
  FakeEncoder* encoder_ = nullptr;
  std::unique_ptr<GrpcServer> server_;
  WorkerPool pool_{1};  // After the server: its last tasks still find what they answer to.
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::EmbeddingService::Stub> stub_;
};

TEST_F(ServiceTest, EmbedsAndSaysWhatWasDone) {
  v1::EmbedRequest request = Request("a b");
  request.add_inputs()->set_text("ccc");
  request.mutable_options()->set_prompt_name("passage");
  request.mutable_options()->set_normalize(false);
  v1::EmbedResponse response;
  const grpc::Status status = Embed(request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.results_size(), 2);
  // "passage:" has 8 letters: id 18; the prompt's blank joins the next word.
  EXPECT_THAT(response.results(0).embeddings(0).values(), ElementsAre(1 + 18 + 11 + 11 + 2, 5, 5, 1));
  EXPECT_EQ(response.results(0).tokens(), 5u);
  EXPECT_EQ(response.results(0).sequences(0).content().end(), 2u);
  EXPECT_EQ(response.results(0).embeddings(0).dimensions(), 4u);
  EXPECT_EQ(response.model(), "fake");
  EXPECT_EQ(response.prompt(), "passage: ");
  EXPECT_EQ(response.recipe().size(), 32u);
  EXPECT_GT(response.timing().total().nanos(), 0);
}

TEST_F(ServiceTest, TruncatesWhenAskedAndCuts) {
  v1::EmbedRequest request = Request("a a a a a a a a a a a a a a a a a a a a");
  request.mutable_options()->set_truncate(EmbedOptions::END);
  request.mutable_options()->set_dimensions(2);
  v1::EmbedResponse response;
  ASSERT_TRUE(Embed(request, &response).ok());
  EXPECT_EQ(response.results(0).tokens(), 16u);
  EXPECT_EQ(response.results(0).truncated_tokens(), 6u);
  EXPECT_EQ(response.results(0).embeddings(0).values_size(), 2);
}

TEST_F(ServiceTest, EncodesVectors) {
  v1::EmbedRequest request = Request("a");
  for (const auto& [encoding, bytes] : {std::pair{EmbedOptions::FLOAT16, 8},
                                        {EmbedOptions::BFLOAT16, 8},
                                        {EmbedOptions::INT8, 4},
                                        {EmbedOptions::BINARY, 1}}) {
    request.mutable_options()->set_encoding(encoding);
    v1::EmbedResponse response;
    ASSERT_TRUE(Embed(request, &response).ok());
    EXPECT_EQ(static_cast<int>(response.results(0).embeddings(0).packed().size()), bytes);
    EXPECT_THAT(response.results(0).embeddings(0).values(), IsEmpty());
    EXPECT_EQ(response.results(0).embeddings(0).dimensions(), 4u);
  }
}

TEST_F(ServiceTest, PartialResults) {
  v1::EmbedRequest request = Request("a");
  request.add_inputs()->set_text("");
  EXPECT_EQ(Embed(request).error_code(), grpc::INVALID_ARGUMENT);
  request.set_partial_results(true);
  v1::EmbedResponse response;
  ASSERT_TRUE(Embed(request, &response).ok());
  EXPECT_FALSE(response.results(0).has_error());
  EXPECT_EQ(response.results(1).error().code(), grpc::INVALID_ARGUMENT);
  EXPECT_THAT(response.results(1).error().message(), HasSubstr("inputs[1]"));
}

// What a bad request is answered with: code, the field in BadRequest, and words.
struct BadRequest {
  const char* name;
  void (*spoil)(v1::EmbedRequest& request);
  grpc::StatusCode code;
  const char* field;
  const char* said;
};

class BadRequestTest : public ServiceTest, public ::testing::WithParamInterface<BadRequest> {};

TEST_P(BadRequestTest, IsRefusedByName) {
  v1::EmbedRequest request = Request("a");
  GetParam().spoil(request);
  const grpc::Status status = Embed(request);
  EXPECT_EQ(status.error_code(), GetParam().code) << status.error_message();
  EXPECT_THAT(status.error_message(), HasSubstr(GetParam().said));
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  google::rpc::BadRequest bad_request;
  for (const auto& any : details.details()) any.UnpackTo(&bad_request);
  EXPECT_EQ(bad_request.field_violations_size() == 0 ? "" : bad_request.field_violations(0).field(), GetParam().field);
  EXPECT_THAT(encoder_->batches(), IsEmpty());
}

const char kTooLong[] = "a a a a a a a a a a a a a a a a a a a a";

INSTANTIATE_TEST_SUITE_P(
    All, BadRequestTest,
    ::testing::Values(
        BadRequest{"NoInputs", [](auto& r) { r.clear_inputs(); }, grpc::INVALID_ARGUMENT, "inputs", "at least 1"},
        BadRequest{"TooManyInputs",
                   [](auto& r) {
                     for (int i = 0; i < 4; ++i) r.add_inputs()->set_text("a");
                   },
                   grpc::INVALID_ARGUMENT, "inputs", "has 5 entries; the limit is 4"},
        BadRequest{"NoContent", [](auto& r) { r.add_inputs(); }, grpc::INVALID_ARGUMENT, "inputs[1]", "neither"},
        BadRequest{"Empty", [](auto& r) { r.mutable_inputs(0)->set_text(""); }, grpc::INVALID_ARGUMENT, "inputs[0]",
                   "empty"},
        BadRequest{"Blank", [](auto& r) { r.mutable_inputs(0)->set_text("  "); }, grpc::INVALID_ARGUMENT, "inputs[0]",
                   "no tokens"},
        BadRequest{"TooLong", [](auto& r) { r.mutable_inputs(0)->set_text(kTooLong); }, grpc::INVALID_ARGUMENT,
                   "inputs[0]", "has 22 tokens (specials and prompt included); the limit is 16"},
        BadRequest{"UnknownModel", [](auto& r) { r.mutable_options()->set_model("e5"); }, grpc::NOT_FOUND,
                   "options.model", "fake"},
        BadRequest{"UnknownPrompt", [](auto& r) { r.mutable_options()->set_prompt_name("p"); }, grpc::INVALID_ARGUMENT,
                   "options.prompt_name", "passage, query"},
        BadRequest{"UnknownTruncate",
                   [](auto& r) { r.mutable_options()->set_truncate(static_cast<EmbedOptions::Truncate>(9)); },
                   grpc::INVALID_ARGUMENT, "options.truncate", "is 9"},
        BadRequest{"UnknownEncoding",
                   [](auto& r) { r.mutable_options()->set_encoding(static_cast<EmbedOptions::Encoding>(9)); },
                   grpc::INVALID_ARGUMENT, "options.encoding", "is 9"},
        BadRequest{"UnknownOutput",
                   [](auto& r) { r.mutable_options()->set_output(static_cast<EmbedOptions::Output>(-1)); },
                   grpc::INVALID_ARGUMENT, "options.output", "is -1"},
        BadRequest{"UnknownPriority",
                   [](auto& r) { r.mutable_options()->set_priority(static_cast<EmbedOptions::Priority>(9)); },
                   grpc::INVALID_ARGUMENT, "options.priority", "is 9"},
        BadRequest{"UnknownInputType",
                   [](auto& r) { r.mutable_options()->set_input_type(static_cast<EmbedOptions::InputType>(9)); },
                   grpc::INVALID_ARGUMENT, "options.input_type", "is 9"},
        BadRequest{"ZeroDimensions", [](auto& r) { r.mutable_options()->set_dimensions(0); }, grpc::INVALID_ARGUMENT,
                   "options.dimensions", "1 to 4"},
        BadRequest{"UntrainedDimensions", [](auto& r) { r.mutable_options()->set_dimensions(3); },
                   grpc::INVALID_ARGUMENT, "options.dimensions", "2, 4"},
        BadRequest{"BadTokenId", [](auto& r) { r.mutable_inputs(0)->mutable_token_ids()->add_ids(100); },
                   grpc::INVALID_ARGUMENT, "inputs[0].token_ids.ids[0]", "0 to 99"},
        BadRequest{"MisplacedRanges", [](auto& r) { r.mutable_inputs(0)->add_ranges(); }, grpc::INVALID_ARGUMENT,
                   "inputs[0].ranges", "SPAN_VECTORS"},
        BadRequest{"MisplacedSpans", [](auto& r) { r.mutable_options()->mutable_spans(); }, grpc::INVALID_ARGUMENT,
                   "options.spans", "SPAN_VECTORS"},
        BadRequest{"MisplacedWindowVectors",
                   [](auto& r) { r.mutable_options()->set_output(EmbedOptions::WINDOW_VECTORS); },
                   grpc::INVALID_ARGUMENT, "options.output", "needs options.extension.windows"},
        BadRequest{"AggregatedWindowVectors",
                   [](auto& r) {
                     r.mutable_options()->set_output(EmbedOptions::WINDOW_VECTORS);
                     r.mutable_options()->mutable_extension()->mutable_windows()->set_aggregation(
                         v1::Extension::Windows::MAX);
                   },
                   grpc::INVALID_ARGUMENT, "options.extension.windows.aggregation", "no effect"},
        BadRequest{"SpanVectorsOfNothing",
                   [](auto& r) { r.mutable_options()->set_output(EmbedOptions::SPAN_VECTORS); }, grpc::INVALID_ARGUMENT,
                   "options.spans", "one of ranges, sentences and every_tokens"},
        BadRequest{"SpansOfWindows",
                   [](auto& r) {
                     r.mutable_options()->set_output(EmbedOptions::SPAN_VECTORS);
                     r.mutable_options()->mutable_spans()->mutable_sentences();
                     r.mutable_options()->mutable_extension()->mutable_windows();
                   },
                   grpc::INVALID_ARGUMENT, "options.extension.windows", "SPAN_VECTORS"},
        BadRequest{"SpansOfAProfileWithWindows",
                   [](auto& r) {
                     r.mutable_options()->set_output(EmbedOptions::SPAN_VECTORS);
                     r.mutable_options()->mutable_spans()->mutable_sentences();
                     r.mutable_options()->mutable_extension()->set_profile("highest");
                   },
                   grpc::INVALID_ARGUMENT, "options.extension.profile", "SPAN_VECTORS"},
        BadRequest{"ARangeBeyondAnyText",
                   [](auto& r) {
                     r.mutable_options()->set_output(EmbedOptions::SPAN_VECTORS);
                     r.mutable_options()->mutable_spans()->mutable_ranges();
                     r.mutable_inputs(0)->add_ranges()->set_end(4294967295);
                   },
                   grpc::INVALID_ARGUMENT, "inputs[0].ranges[0]", "is [0, 4294967295)"},
        BadRequest{"LongPrompt", [](auto& r) { r.mutable_options()->set_prompt(std::string(31, 'p')); },
                   grpc::INVALID_ARGUMENT, "options.prompt", "has 31 bytes; the limit of this server is 30"},
        BadRequest{"SpansOfNoTokens",
                   [](auto& r) {
                     r.mutable_options()->set_output(EmbedOptions::SPAN_VECTORS);
                     r.mutable_options()->mutable_spans()->mutable_every_tokens();
                   },
                   grpc::INVALID_ARGUMENT, "options.spans.every_tokens.tokens", "at least 1"},
        BadRequest{"NoRanges",
                   [](auto& r) {
                     r.mutable_options()->set_output(EmbedOptions::SPAN_VECTORS);
                     r.mutable_options()->mutable_spans()->mutable_ranges();
                   },
                   grpc::INVALID_ARGUMENT, "inputs[0].ranges", "at least 1 range"},
        BadRequest{"SentencesOfIds",
                   [](auto& r) {
                     r.mutable_options()->set_output(EmbedOptions::SPAN_VECTORS);
                     r.mutable_options()->mutable_spans()->mutable_sentences();
                     r.mutable_inputs(0)->mutable_token_ids()->add_ids(20);
                   },
                   grpc::INVALID_ARGUMENT, "inputs[0].token_ids", "give text"},
        BadRequest{"Extension",
                   [](auto& r) {
                     r.mutable_options()->mutable_extension()->mutable_grouped()->set_factor(0);
                   },
                   grpc::INVALID_ARGUMENT, "options.extension.grouped.factor", "1 to 65536"},
        BadRequest{"TooManyVectors",
                   [](auto& r) {
                     for (int i = 0; i < 2; ++i) r.add_inputs()->set_text(kTooLong);
                     r.mutable_options()->mutable_extension()->mutable_windows()->set_tokens(4);
                   },
                   grpc::INVALID_ARGUMENT, "inputs", "the limit of a call is 20"},
        BadRequest{"TooLarge", [](auto& r) { r.mutable_inputs(0)->set_text(std::string(70000, 'a')); },
                   grpc::INVALID_ARGUMENT, "", "the limit is 65536"}),
    [](const auto& info) { return info.param.name; });

TEST_F(ServiceTest, WindowsAreAggregatedOrComeApart) {
  v1::EmbedRequest request = Request(kTooLong);  // 20 tokens.
  request.mutable_options()->mutable_extension()->mutable_windows()->set_tokens(12);
  v1::EmbedResponse response;
  ASSERT_TRUE(Embed(request, &response).ok());
  EXPECT_EQ(response.results(0).embeddings_size(), 1);
  EXPECT_FALSE(response.results(0).embeddings(0).has_range());
  EXPECT_EQ(response.results(0).sequences_size(), 2);
  EXPECT_EQ(response.results(0).tokens(), 22u);
  request.mutable_options()->set_output(EmbedOptions::WINDOW_VECTORS);
  ASSERT_TRUE(Embed(request, &response).ok());
  ASSERT_EQ(response.results(0).embeddings_size(), 2);
  EXPECT_EQ(response.results(0).embeddings(1).range().start(), 10u);
  EXPECT_EQ(response.results(0).embeddings(1).range().end(), 20u);
  // A profile's aggregation is for those who want one vector.
  request.mutable_options()->mutable_extension()->Clear();
  request.mutable_options()->mutable_extension()->set_profile("highest");
  ASSERT_TRUE(Embed(request, &response).ok());
  EXPECT_EQ(response.results(0).embeddings_size(), 5);
}

TEST_F(ServiceTest, SpansHaveAVectorEach) {
  v1::EmbedRequest request = Request("a bb ccc");
  request.mutable_options()->set_normalize(false);
  request.mutable_options()->set_output(EmbedOptions::SPAN_VECTORS);
  request.mutable_options()->mutable_spans()->mutable_every_tokens()->set_tokens(2);
  v1::EmbedResponse response;
  ASSERT_TRUE(Embed(request, &response).ok());
  ASSERT_EQ(response.results(0).embeddings_size(), 2);
  EXPECT_THAT(response.results(0).embeddings(0).values(), ElementsAre(11 + 12, 2, 5, 1));
  EXPECT_THAT(response.results(0).embeddings(1).values(), ElementsAre(13, 1, 5, 1));
}

TEST_F(ServiceTest, OverloadHasAPushback) {
  encoder_->CloseGate();
  std::vector<std::jthread> waiting;
  const auto send = [this] {
    v1::EmbedRequest request;
    for (int i = 0; i < 4; ++i) request.add_inputs()->set_text("a a a a a a a a a a a a a a");
    grpc::ClientContext context;
    v1::EmbedResponse response;
    stub_->Embed(&context, request, &response);
  };
  waiting.emplace_back(send);
  encoder_->AwaitCalls(1);
  waiting.emplace_back(send);
  while (models_.models()[0]->lane().queue_state().tokens < 64) absl::SleepFor(absl::Milliseconds(1));
  grpc::ClientContext context;
  v1::EmbedRequest request = Request("a a a a a a a a a a a a a a");
  for (int i = 0; i < 3; ++i) *request.add_inputs() = request.inputs(0);
  v1::EmbedResponse response;
  const grpc::Status status = stub_->Embed(&context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::RESOURCE_EXHAUSTED);
  EXPECT_EQ(context.GetServerTrailingMetadata().count("grpc-retry-pushback-ms"), 1u);
  encoder_->OpenGate();
}

TEST_F(ServiceTest, ADeadlineOnALongQueueNeverReachesTheModel) {
  encoder_->CloseGate();
  std::jthread blocker([this] { Embed(Request("blocker")); });
  encoder_->AwaitCalls(1);
  grpc::ClientContext context;
  // Long enough to be in the queue before it passes, on a busy machine too: a call that arrived after the gate opens
  // would run.
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(1));
  grpc::Status status;
  std::jthread late([&] {
    v1::EmbedResponse response;
    status = stub_->Embed(&context, Request("x"), &response);
  });
  Lane& lane = models_.models()[0]->lane();
  while (lane.queue_state().jobs == 0) absl::SleepFor(absl::Milliseconds(1));
  late.join();
  EXPECT_EQ(status.error_code(), grpc::DEADLINE_EXCEEDED);
  while (lane.queue_state().jobs > 0) absl::SleepFor(absl::Milliseconds(1));  // Freed without a worker's help.
  encoder_->OpenGate();
  blocker.join();
  EXPECT_TRUE(lane.WaitIdle(absl::InfiniteDuration()));
  EXPECT_EQ(encoder_->batches().size(), 1u);
}

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
  EXPECT_THAT(encoder_->batches(), IsEmpty());
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
              HasSubstr("texts[1]: has 60 tokens or more; of what this server tokenises in a call, 38"));
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
  request.set_model("other");
  EXPECT_EQ(stub_->GetModel(&unknown_context, request, &model).error_code(), grpc::NOT_FOUND);
}

// -------------------------------------------------------------------------------------------------------- EmbedStream

class EmbedStreamTest : public ServiceTest {
 protected:
  using ServiceTest::ServiceTest;
  using Stream = grpc::ClientReaderWriter<v1::EmbedStreamRequest, v1::EmbedStreamResponse>;

  std::unique_ptr<Stream> Open() { return stub_->EmbedStream(&context_); }

  static v1::EmbedStreamRequest Message(const std::string& id, const std::string& text, bool more_parts = false) {
    v1::EmbedStreamRequest message;
    message.set_id(id);
    message.mutable_input()->set_text(text);
    message.set_more_parts(more_parts);
    return message;
  }
  static v1::EmbedStreamRequest FirstMessage(const std::string& id, const std::string& text) {
    v1::EmbedStreamRequest message = Message(id, text);
    message.mutable_options()->set_normalize(false);
    return message;
  }
  // Everything that comes, by id.
  static std::map<std::string, v1::EmbedStreamResponse> ReadAll(Stream& stream) {
    std::map<std::string, v1::EmbedStreamResponse> answers;
    for (v1::EmbedStreamResponse answer; stream.Read(&answer);) {
      EXPECT_TRUE(answers.emplace(answer.id(), answer).second) << answer.id();
    }
    return answers;
  }

  grpc::ClientContext context_;
};

TEST_F(EmbedStreamTest, AnswersEveryIdUnderTheOptionsOfTheFirstMessage) {
  const auto stream = Open();
  stream->Write(FirstMessage("0", "x"));
  // Far more than the queue's 100 tokens, 3 for each message: they wait, and none is refused.
  for (int i = 1; i < 300; ++i)
    stream->Write(Message(absl::StrCat(i), std::string(static_cast<size_t>(1 + i % 9), 'a')));
  stream->WritesDone();
  const auto answers = ReadAll(*stream);
  EXPECT_TRUE(stream->Finish().ok());
  ASSERT_EQ(answers.size(), 300u);
  for (const auto& [id, answer] : answers) {
    const int letters = id == "0" ? 1 : 1 + std::stoi(id) % 9;
    ASSERT_EQ(answer.result().embeddings_size(), 1) << id << answer.ShortDebugString();
    EXPECT_EQ(answer.result().embeddings(0).values(0), static_cast<float>(1 + 10 + letters + 2)) << id;
    EXPECT_EQ(answer.model(), "fake");
    EXPECT_FALSE(answer.recipe().empty());
  }
}

TEST_F(EmbedStreamTest, AnInputThatFailsDoesNotEndTheStream) {
  const auto stream = Open();
  stream->Write(Message("empty", ""));
  stream->Write(Message("none", ""));
  v1::EmbedStreamRequest no_content;
  no_content.set_id("nothing");
  stream->Write(no_content);
  stream->Write(Message("long", "a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a"));
  stream->Write(Message("fine", "a"));
  stream->WritesDone();
  const auto answers = ReadAll(*stream);
  EXPECT_TRUE(stream->Finish().ok());
  ASSERT_EQ(answers.size(), 5u);
  EXPECT_EQ(answers.at("empty").result().error().code(), grpc::INVALID_ARGUMENT);
  EXPECT_THAT(answers.at("long").result().error().message(), HasSubstr("input: "));
  EXPECT_THAT(answers.at("nothing").result().error().message(), HasSubstr("input: has neither"));
  EXPECT_FALSE(answers.at("fine").result().has_error());
}

TEST_F(EmbedStreamTest, WantOfMemoryFailsTheInputAlone) {
  const auto stream = Open();
  stream->Write(FirstMessage("huge", std::string(kNoMemory)));
  stream->Write(Message("fine", "a"));
  stream->WritesDone();
  const auto answers = ReadAll(*stream);
  EXPECT_TRUE(stream->Finish().ok());
  ASSERT_EQ(answers.size(), 2u);
  EXPECT_EQ(answers.at("huge").result().error().code(), grpc::RESOURCE_EXHAUSTED);
  EXPECT_FALSE(answers.at("fine").result().has_error());
}

// Parts and short texts by turns, which end in the middle of each other's reading.
TEST_F(EmbedStreamTest, MessagesAreBegunOneAfterTheOther) {
  const auto stream = Open();
  constexpr int kRounds = 60, kParts = 8;
  std::jthread writer([&stream] {
    stream->Write(FirstMessage("first", "a"));
    for (int i = 0; i < kRounds; ++i) {
      stream->Write(Message(absl::StrCat("short ", i), "a"));
      for (int part = 0; part < kParts; ++part) {
        stream->Write(Message(absl::StrCat("long ", i), std::string(static_cast<size_t>(part) + 1, 'a') + " ",
                              /*more_parts=*/part + 1 < kParts));
      }
    }
    stream->WritesDone();
  });
  const auto answers = ReadAll(*stream);
  EXPECT_TRUE(stream->Finish().ok());
  ASSERT_EQ(answers.size(), 2u * kRounds + 1);
  for (int i = 0; i < kRounds; ++i) {
    const auto& result = answers.at(absl::StrCat("long ", i)).result();
    ASSERT_EQ(result.tokens(), kParts + 2u) << result.ShortDebugString();
    EXPECT_EQ(result.embeddings(0).values(0), 1 + 11 + 12 + 13 + 14 + 15 + 16 + 17 + 18 + 2);
  }
}

TEST_F(EmbedStreamTest, AnEndInTheMiddleOfATextIsAnError) {
  const auto stream = Open();
  stream->Write(FirstMessage("whole", "a"));
  stream->Write(Message("half", "b ", /*more_parts=*/true));
  stream->WritesDone();
  EXPECT_EQ(ReadAll(*stream).size(), 1u);
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("\"half\" is not whole"));
}

TEST_F(EmbedStreamTest, WhatTheStreamItselfGetsWrongEndsIt) {
  const auto fails_with = [this](const std::vector<v1::EmbedStreamRequest>& messages, const std::string& words) {
    grpc::ClientContext context;
    const auto stream = stub_->EmbedStream(&context);
    for (const v1::EmbedStreamRequest& message : messages) stream->Write(message);
    ReadAll(*stream);
    const grpc::Status status = stream->Finish();
    EXPECT_EQ(status.error_code(), grpc::INVALID_ARGUMENT) << words;
    EXPECT_THAT(status.error_message(), HasSubstr(words));
  };
  fails_with({FirstMessage("a", "a"), FirstMessage("b", "b")}, "options: is set");
  v1::EmbedStreamRequest bad = FirstMessage("a", "a");
  bad.mutable_options()->set_prompt_name("sonnet");
  fails_with({bad}, "options.prompt_name");
  fails_with({Message("a", "a ", true), Message("b", "b")}, "the last part of \"a\"");
  v1::EmbedStreamRequest ids;
  ids.mutable_input()->mutable_token_ids()->add_ids(11);
  ids.set_more_parts(true);
  fails_with({ids}, "parts hold text");
}

TEST_F(EmbedStreamTest, ATextMayComeInParts) {
  const auto stream = Open();
  v1::EmbedStreamRequest first = FirstMessage("whole", "aa b");
  first.set_more_parts(true);
  stream->Write(first);
  stream->Write(Message("whole", "bb ", true));
  stream->Write(Message("whole", "c"));
  stream->Write(Message("next", "dddd"));
  stream->WritesDone();
  const auto answers = ReadAll(*stream);
  EXPECT_TRUE(stream->Finish().ok());
  ASSERT_EQ(answers.size(), 2u);
  EXPECT_THAT(answers.at("whole").result().embeddings(0).values(), ElementsAre(1 + 12 + 13 + 11 + 2, 5, 5, 1));
  EXPECT_THAT(answers.at("next").result().embeddings(0).values(), ElementsAre(1 + 14 + 2, 3, 3, 1));
  // The server's side of the stream ends a moment after the client's.
  for (int i = 0; i < 500 && pending_.bytes() > 0; ++i) absl::SleepFor(absl::Milliseconds(10));
  EXPECT_EQ(pending_.bytes(), 0);
}

TEST_F(EmbedStreamTest, ATextBeyondTheLimitOfItsPartsIsRefused) {
  const auto stream = Open();
  const std::string part(1 << 15, 'a');
  for (int i = 0; i < 9; ++i) stream->Write(Message("huge", part, true));  // 4 times max_request_bytes is 8 of these.
  ReadAll(*stream);
  EXPECT_THAT(stream->Finish().error_message(), HasSubstr("the limit is 262144"));
}

TEST_F(EmbedStreamTest, AnIdleStreamEndsWhenTheServerDrains) {
  const auto stream = Open();
  stream->Write(FirstMessage("a", "a"));
  v1::EmbedStreamResponse answer;
  ASSERT_TRUE(stream->Read(&answer));
  const absl::Time started = absl::Now();
  server_->Shutdown(absl::Seconds(30));
  EXPECT_LT(absl::Now() - started, absl::Seconds(10));
  EXPECT_FALSE(stream->Read(&answer));
  EXPECT_EQ(stream->Finish().error_code(), grpc::UNAVAILABLE);
}

TEST_F(EmbedStreamTest, WhatWasReadIsAnsweredBeforeTheDrainEndsTheStream) {
  encoder_->CloseGate();
  const auto stream = Open();
  stream->Write(FirstMessage("a", "a"));
  encoder_->AwaitCalls(1);
  std::jthread drain([this] { server_->Shutdown(absl::Seconds(30)); });
  absl::SleepFor(absl::Milliseconds(50));
  encoder_->OpenGate();
  EXPECT_EQ(ReadAll(*stream).size(), 1u);
  EXPECT_EQ(stream->Finish().error_code(), grpc::UNAVAILABLE);
}

// A message that comes while the server drains is not taken, and the client is told so.
TEST_F(EmbedStreamTest, AClientThatGoesOnSendingIsToldOfTheDrain) {
  const auto stream = Open();
  stream->Write(FirstMessage("0", "a"));
  v1::EmbedStreamResponse answer;
  ASSERT_TRUE(stream->Read(&answer));
  encoder_->CloseGate();
  stream->Write(Message("1", "a"));
  encoder_->AwaitCalls(2);
  std::jthread drain([this] { server_->Shutdown(absl::Seconds(30)); });
  absl::SleepFor(absl::Milliseconds(50));
  stream->Write(Message("2", "a"));
  absl::SleepFor(absl::Milliseconds(50));
  encoder_->OpenGate();
  EXPECT_EQ(ReadAll(*stream).size(), 1u);
  EXPECT_EQ(stream->Finish().error_code(), grpc::UNAVAILABLE);
}

class OldStreamTest : public EmbedStreamTest {
 protected:
  OldStreamTest() : EmbedStreamTest(absl::Milliseconds(200)) {}
};

TEST_F(OldStreamTest, ItIsToldToGoOnAsAnotherOne) {
  const auto stream = Open();
  // One after the other, so that whatever is sent before the end is answered.
  int answered = 0;
  v1::EmbedStreamResponse answer;
  for (const absl::Time end = absl::Now() + absl::Seconds(10); absl::Now() < end; ++answered) {
    if (!stream->Write(Message(absl::StrCat(answered), "a")) || !stream->Read(&answer)) break;
    ASSERT_EQ(answer.id(), absl::StrCat(answered));
  }
  EXPECT_GT(answered, 0);
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("connections.max_age, which is 200ms"));
}

TEST_F(EmbedStreamTest, ItIsReadOnlyAsFarAsItIsAnswered) {
  encoder_->CloseGate();
  const auto stream = Open();
  std::jthread writer([&stream] {
    for (int i = 0; i < 2000 && stream->Write(Message(absl::StrCat(i), "a")); ++i) {
    }
  });
  encoder_->AwaitCalls(1);
  absl::SleepFor(absl::Milliseconds(100));
  EXPECT_LE(models_.models()[0]->lane().queue_state().jobs, 256u);
  context_.TryCancel();
  encoder_->OpenGate();
  stream->Finish();
}

// An allocation that fails fails its request, whichever method it is for, and no other.
TEST_F(ServiceTest, WantOfMemoryFailsItsRequestAlone) {
  const std::string huge(kNoMemory);
  const auto expect_out_of_memory = [](const grpc::Status& status) {
    EXPECT_EQ(status.error_code(), grpc::RESOURCE_EXHAUSTED);
    EXPECT_THAT(status.error_message(), HasSubstr("not the memory"));
  };
  expect_out_of_memory(Embed(Request(huge)));
  {
    grpc::ClientContext context;
    v1::ExplainRequest request;
    request.add_inputs()->set_text(huge);
    v1::ExplainResponse response;
    expect_out_of_memory(stub_->Explain(&context, request, &response));
  }
  {
    grpc::ClientContext context;
    v1::TokenizeRequest request;
    request.add_texts(huge);
    v1::TokenizeResponse response;
    expect_out_of_memory(stub_->Tokenize(&context, request, &response));
  }
  {
    grpc::ClientContext context;
    tei::v1::EncodeRequest request;
    request.set_inputs(huge);
    tei::v1::EncodeResponse response;
    EXPECT_FALSE(tei::v1::Tokenize::NewStub(channel_)->Tokenize(&context, request, &response).ok());
  }
  EXPECT_TRUE(Embed(Request("a")).ok());
}

TEST_F(ServiceTest, CountsCalls) {
  Embed(Request("a"));
  Embed(Request(""));
  EXPECT_THAT(metrics_.Scrape(), HasSubstr("longembed_requests_total{code=\"OK\",method=\"Embed\",model=\"fake\"} 1"));
  EXPECT_THAT(metrics_.Scrape(),
              HasSubstr("longembed_requests_total{code=\"INVALID_ARGUMENT\",method=\"Embed\",model=\"fake\"} 1"));
}

TEST_F(ServiceTest, ManyClientsAtOnceGetTheirOwnVectors) {
  std::vector<std::jthread> clients;
  for (int c = 0; c < 8; ++c) {
    clients.emplace_back([this, c] {
      for (int i = 0; i < 30; ++i) {
        v1::EmbedRequest request = Request(std::string(c + 1, 'x'));
        request.mutable_options()->set_normalize(false);
        v1::EmbedResponse response;
        ASSERT_TRUE(Embed(request, &response).ok());
        EXPECT_THAT(response.results(0).embeddings(0).values(), ElementsAre(1 + 11 + c + 2, 3, 3, 1));
      }
    });
  }
}

// ------------------------------------------------------------------------------------------------------------ tei.v1

class TeiStreamTest : public ServiceTest {
 protected:
  static tei::v1::EmbedRequest TeiRequest(const std::string& text) {
    tei::v1::EmbedRequest request;
    request.set_inputs(text);
    request.set_normalize(false);
    return request;
  }

  std::unique_ptr<tei::v1::Embed::Stub> tei_ = tei::v1::Embed::NewStub(channel_);
};

TEST_F(TeiStreamTest, AnswersInOrder) {
  grpc::ClientContext context;
  const auto stream = tei_->EmbedStream(&context);
  tei::v1::EmbedResponse response;
  for (int first = 0; first < 200; first += 20) {  // The queue takes no more than 100 tokens, 3 for each message.
    for (int i = first; i < first + 20; ++i)
      stream->Write(TeiRequest(std::string(static_cast<size_t>(1 + i % 9), 'a')));
    for (int i = first; i < first + 20; ++i) {
      ASSERT_TRUE(stream->Read(&response)) << i;
      ASSERT_EQ(response.embeddings(0), static_cast<float>(1 + 10 + 1 + i % 9 + 2)) << i;  // Sum of the three tokens.
    }
  }
  stream->WritesDone();
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(TeiStreamTest, ABrokenMessageEndsTheStreamAfterWhatCameBefore) {
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

TEST_F(TeiStreamTest, ACancelledStreamLeavesNothingBehind) {
  encoder_->CloseGate();
  for (int round = 0; round < 5; ++round) {
    grpc::ClientContext context;
    const auto stream = tei_->EmbedStream(&context);
    for (int i = 0; i < 10; ++i) stream->Write(TeiRequest("a b c"));
    context.TryCancel();
    EXPECT_EQ(stream->Finish().error_code(), grpc::CANCELLED);
  }
  encoder_->OpenGate();
  EXPECT_TRUE(models_.models()[0]->lane().WaitIdle(absl::Seconds(10)));
}

// Nobody reads the answers and no batch ends: the server takes some messages and leaves the rest to the client's side.
TEST_F(TeiStreamTest, AStreamIsReadOnlyAsFarAsItIsAnswered) {
  encoder_->CloseGate();
  grpc::ClientContext context;
  const auto stream = tei_->EmbedStream(&context);
  for (int i = 0; i < 90; ++i) stream->Write(TeiRequest("a"));  // 3 tokens each; the queue would take no more than 100.
  encoder_->AwaitCalls(1);
  absl::SleepFor(absl::Milliseconds(50));
  EXPECT_LE(models_.models()[0]->lane().queue_state().jobs, 64u);
  context.TryCancel();
  encoder_->OpenGate();
  stream->Finish();
}

}  // namespace
}  // namespace longembed
