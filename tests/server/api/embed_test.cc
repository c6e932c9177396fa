// Tests Embed over a real channel, and behavior that all methods share.
#include <gmock/gmock.h>

#include <thread>
#include <tuple>

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

TEST_F(ServiceTest, EmbedsAndReportsThePlan) {
  v1::EmbedRequest request = Request("a b");
  request.add_inputs()->set_text("ccc");
  request.mutable_options()->set_prompt_name("passage");
  request.mutable_options()->set_normalize(false);
  v1::EmbedResponse response;
  const grpc::Status status = Embed(request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.results_size(), 2);
  // "passage:" has 8 letters, so its id is 18. The blank of the prompt belongs to the next word.
  EXPECT_THAT(response.results(0).embeddings(0).values(), ElementsAre(1 + 18 + 11 + 11 + 2, 5, 5, 1));
  EXPECT_EQ(response.results(0).tokens(), 5u);
  EXPECT_EQ(response.results(0).sequences(0).content().end(), 2u);
  EXPECT_EQ(response.results(0).embeddings(0).dimensions(), 4u);
  EXPECT_EQ(response.model(), "fake");
  EXPECT_EQ(response.prompt(), "passage: ");
  EXPECT_EQ(response.recipe().size(), 32u);
  EXPECT_GT(response.timing().total().nanos(), 0);
}

TEST_F(ServiceTest, TruncatesTextsAndDropsDimensionsOnRequest) {
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

// The answer to a bad request: code, field of BadRequest, and message.
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
  EXPECT_THAT(encoder_.batches(), IsEmpty());
}

INSTANTIATE_TEST_SUITE_P(
    All, BadRequestTest,
    ::testing::Values(
        BadRequest{"NoInputs", [](auto& r) { r.clear_inputs(); }, grpc::INVALID_ARGUMENT, "inputs", "at least 1"},
        BadRequest{"TooManyInputs",
                   [](auto& r) {
                     for (int i = 0; i < 4; ++i) r.add_inputs()->set_text("a");
                   },
                   grpc::INVALID_ARGUMENT, "inputs", "has 5 entries; the limit per call is 4"},
        BadRequest{"NoContent", [](auto& r) { r.add_inputs(); }, grpc::INVALID_ARGUMENT, "inputs[1]", "neither"},
        BadRequest{"Empty", [](auto& r) { r.mutable_inputs(0)->set_text(""); }, grpc::INVALID_ARGUMENT, "inputs[0]",
                   "empty"},
        BadRequest{"Blank", [](auto& r) { r.mutable_inputs(0)->set_text("  "); }, grpc::INVALID_ARGUMENT, "inputs[0]",
                   "no tokens"},
        BadRequest{"TooLong", [](auto& r) { r.mutable_inputs(0)->set_text(kTooLong); }, grpc::INVALID_ARGUMENT,
                   "inputs[0]", "has 22 tokens (special tokens and prompt included); the limit is 16"},
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
        BadRequest{"GroupsOfOneVector",
                   [](auto& r) { r.mutable_options()->mutable_extension()->mutable_windows()->set_vectors(2); },
                   grpc::INVALID_ARGUMENT, "options.extension.windows.vectors", "(vectors = 2)"},
        BadRequest{"GroupsOfAProfile",
                   [](auto& r) { r.mutable_options()->mutable_extension()->set_profile("groups"); },
                   grpc::INVALID_ARGUMENT, "options.extension.profile", "WINDOW_VECTORS, not with ONE_VECTOR"},
        BadRequest{"NoGroups",
                   [](auto& r) {
                     r.mutable_options()->set_output(EmbedOptions::WINDOW_VECTORS);
                     r.mutable_options()->mutable_extension()->mutable_windows()->set_vectors(0);
                   },
                   grpc::INVALID_ARGUMENT, "options.extension.windows.vectors", "is 0; it must be 1 to"},
        BadRequest{"TopOfAMean",
                   [](auto& r) { r.mutable_options()->mutable_extension()->mutable_windows()->set_top(2); },
                   grpc::INVALID_ARGUMENT, "options.extension.windows.top", "needs windows.aggregation TOP_NORM; windows.aggregation is MEAN"},
        BadRequest{"TemperatureOfAMean",
                   [](auto& r) {
                     r.mutable_options()->mutable_extension()->mutable_windows()->set_norm_temperature(2);
                   },
                   grpc::INVALID_ARGUMENT, "options.extension.windows.norm_temperature", "needs windows.aggregation NORM_WEIGHTED"},
        BadRequest{"NoMaxTokens", [](auto& r) { r.mutable_options()->set_max_tokens(0); }, grpc::INVALID_ARGUMENT,
                   "options.max_tokens", "is 0; it must be 1 to 2147483647"},
        BadRequest{"HugeMaxTokens", [](auto& r) { r.mutable_options()->set_max_tokens(2147483648); },
                   grpc::INVALID_ARGUMENT, "options.max_tokens", "is 2147483648"},
        BadRequest{"MaxTokensOfTheSpecials", [](auto& r) { r.mutable_options()->set_max_tokens(2); },
                   grpc::INVALID_ARGUMENT, "options.max_tokens", "is 2; prompt and special tokens alone take 2"},
        BadRequest{"BeyondMaxTokens",
                   [](auto& r) {
                     r.mutable_options()->set_max_tokens(5);
                     r.mutable_inputs(0)->set_text("a a a a");
                   },
                   grpc::INVALID_ARGUMENT, "inputs[0]", "(special tokens and prompt included); options.max_tokens is 5"},
        BadRequest{"SpanVectorsOfNothing",
                   [](auto& r) { r.mutable_options()->set_output(EmbedOptions::SPAN_VECTORS); }, grpc::INVALID_ARGUMENT,
                   "options.spans", "one of ranges, sentences and every_tokens"},
        BadRequest{"SpansOfAggregatedWindows",
                   [](auto& r) {
                     r.mutable_options()->set_output(EmbedOptions::SPAN_VECTORS);
                     r.mutable_options()->mutable_spans()->mutable_sentences();
                     r.mutable_options()->mutable_extension()->mutable_windows()->set_aggregation(
                         v1::Extension::Windows::MAX);
                   },
                   grpc::INVALID_ARGUMENT, "options.extension.windows.aggregation", "SPAN_VECTORS"},
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
                   grpc::INVALID_ARGUMENT, "inputs[0].token_ids", "send text"},
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
                   grpc::INVALID_ARGUMENT, "inputs", "the limit per call is 20"},
        BadRequest{"TooLarge", [](auto& r) { r.mutable_inputs(0)->set_text(std::string(70000, 'a')); },
                   grpc::INVALID_ARGUMENT, "", "the limit is 65536"}),
    [](const auto& info) { return info.param.name; });

TEST_F(ServiceTest, WindowsAreAggregatedOrHaveAVectorEach) {
  v1::EmbedRequest request = Request(kTooLong);  // The text has 20 tokens.
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
  // The aggregation of a profile is only for requests of one vector.
  request.mutable_options()->mutable_extension()->Clear();
  request.mutable_options()->mutable_extension()->set_profile("highest");
  ASSERT_TRUE(Embed(request, &response).ok());
  EXPECT_EQ(response.results(0).embeddings_size(), 5);
}

TEST_F(ServiceTest, WindowsComeInGroups) {
  v1::EmbedRequest request = Request(kTooLong);  // The text has 20 tokens.
  request.mutable_options()->mutable_extension()->mutable_windows()->set_tokens(6);
  request.mutable_options()->set_output(EmbedOptions::WINDOW_VECTORS);
  request.mutable_options()->set_normalize(false);
  v1::EmbedResponse windows, groups;
  ASSERT_TRUE(Embed(request, &windows).ok());
  ASSERT_EQ(windows.results(0).embeddings_size(), 5);
  request.mutable_options()->mutable_extension()->mutable_windows()->set_vectors(2);
  ASSERT_TRUE(Embed(request, &groups).ok());
  const auto& result = groups.results(0);
  ASSERT_EQ(result.embeddings_size(), 2);
  EXPECT_EQ(result.sequences_size(), 5);
  EXPECT_NE(groups.recipe(), windows.recipe());
  const auto value = [&windows](int window) { return windows.results(0).embeddings(window).values(0); };
  EXPECT_FLOAT_EQ(result.embeddings(0).values(0), (value(0) + value(1) + value(2)) / 3);
  EXPECT_FLOAT_EQ(result.embeddings(1).values(0), (value(3) + value(4)) / 2);
  EXPECT_EQ(result.embeddings(0).range().start(), 0u);
  EXPECT_EQ(result.embeddings(0).range().end(), 12u);
  EXPECT_EQ(result.embeddings(1).range().start(), 12u);
  EXPECT_EQ(result.embeddings(1).range().end(), 20u);
  // Within a group, windows are aggregated as requested.
  request.mutable_options()->mutable_extension()->mutable_windows()->set_aggregation(v1::Extension::Windows::FIRST);
  ASSERT_TRUE(Embed(request, &groups).ok());
  EXPECT_FLOAT_EQ(groups.results(0).embeddings(1).values(0), value(3));
}

TEST_F(ServiceTest, RecommendedDependsOnTheOutput) {
  for (const auto& [output, window, vectors] :
       {std::tuple{EmbedOptions::ONE_VECTOR, 12u, 1}, {EmbedOptions::WINDOW_VECTORS, 6u, 5}}) {
    v1::EmbedRequest request = Request(kTooLong);
    request.mutable_options()->set_output(output);
    v1::Extension& extension = *request.mutable_options()->mutable_extension();
    v1::EmbedResponse recommended, spelt_out;
    extension.mutable_recommended();
    ASSERT_TRUE(Embed(request, &recommended).ok());
    extension.Clear();
    extension.mutable_windows()->set_tokens(window);
    ASSERT_TRUE(Embed(request, &spelt_out).ok());
    EXPECT_EQ(recommended.results(0).embeddings_size(), vectors);
    EXPECT_EQ(recommended.results(0).SerializeAsString(), spelt_out.results(0).SerializeAsString());
    EXPECT_EQ(recommended.recipe(), spelt_out.recipe());
  }
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

// Lo is 16 tokens, two of which are special tokens.
TEST_F(ServiceTest, SpansMayCrossWindows) {
  v1::EmbedRequest request = Request("a a a a a a a a a a a a a a a a a a a a a a a a");
  request.mutable_options()->set_output(EmbedOptions::SPAN_VECTORS);
  request.mutable_options()->mutable_spans()->mutable_every_tokens()->set_tokens(10);
  request.mutable_options()->mutable_extension()->mutable_windows()->set_overlap(4);
  v1::EmbedResponse response;
  ASSERT_TRUE(Embed(request, &response).ok());
  ASSERT_EQ(response.results(0).embeddings_size(), 3);
  EXPECT_EQ(response.results(0).embeddings(1).range().start(), 10u);
  EXPECT_EQ(response.results(0).embeddings(1).range().end(), 20u);
  EXPECT_EQ(response.results(0).sequences_size(), 2);
}

TEST_F(ServiceTest, OverloadHasAPushback) {
  encoder_.CloseGate();
  std::vector<std::jthread> waiting;
  const auto send = [this] {
    v1::EmbedRequest request;
    for (int i = 0; i < 4; ++i) request.add_inputs()->set_text("a a a a a a a a a a a a a a");
    grpc::ClientContext context;
    v1::EmbedResponse response;
    stub_->Embed(&context, request, &response);
  };
  waiting.emplace_back(send);
  encoder_.AwaitCalls(1);
  waiting.emplace_back(send);
  while (server_.lane().queue_state().tokens < 64) absl::SleepFor(absl::Milliseconds(1));
  grpc::ClientContext context;
  v1::EmbedRequest request = Request("a a a a a a a a a a a a a a");
  for (int i = 0; i < 3; ++i) *request.add_inputs() = request.inputs(0);
  v1::EmbedResponse response;
  const grpc::Status status = stub_->Embed(&context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::RESOURCE_EXHAUSTED);
  EXPECT_EQ(context.GetServerTrailingMetadata().count("grpc-retry-pushback-ms"), 1u);
  encoder_.OpenGate();
}

TEST_F(ServiceTest, ACallWhoseDeadlinePassesInTheQueueNeverReachesTheModel) {
  encoder_.CloseGate();
  std::jthread blocker([this] { Embed(Request("blocker")); });
  encoder_.AwaitCalls(1);
  grpc::ClientContext context;
  // Long enough for the call to reach the queue before the deadline, even on a busy machine. A call that arrived after
  // the gate opens would run.
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(1));
  grpc::Status status;
  std::jthread late([&] {
    v1::EmbedResponse response;
    status = stub_->Embed(&context, Request("x"), &response);
  });
  Lane& lane = server_.lane();
  while (lane.queue_state().jobs == 0) absl::SleepFor(absl::Milliseconds(1));
  late.join();
  EXPECT_EQ(status.error_code(), grpc::DEADLINE_EXCEEDED);
  // The queue is freed without a worker's help.
  while (lane.queue_state().jobs > 0) absl::SleepFor(absl::Milliseconds(1));
  encoder_.OpenGate();
  blocker.join();
  EXPECT_TRUE(lane.WaitIdle(absl::InfiniteDuration()));
  EXPECT_EQ(encoder_.batches().size(), 1u);
}

// A failed allocation must fail only the request that made it, whatever its method.
TEST_F(ServiceTest, OutOfMemoryFailsOnlyItsRequest) {
  const std::string huge(kNoMemory);
  const auto expect_out_of_memory = [](const grpc::Status& status) {
    EXPECT_EQ(status.error_code(), grpc::RESOURCE_EXHAUSTED);
    EXPECT_THAT(status.error_message(), HasSubstr("ran out of memory"));
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
    // TEI uses this code for server errors.
    const grpc::Status status = tei::v1::Tokenize::NewStub(channel_)->Tokenize(&context, request, &response);
    EXPECT_EQ(status.error_code(), grpc::FAILED_PRECONDITION);
    EXPECT_THAT(status.error_message(), HasSubstr("ran out of memory"));
  }
  EXPECT_TRUE(Embed(Request("a")).ok());
}

TEST_F(ServiceTest, CountsCalls) {
  Embed(Request("a"));
  Embed(Request(""));
  EXPECT_THAT(server_.metrics().Scrape(),
              HasSubstr("longembed_requests_total{code=\"OK\",method=\"Embed\",model=\"fake\"} 1"));
  EXPECT_THAT(server_.metrics().Scrape(),
              HasSubstr("longembed_requests_total{code=\"INVALID_ARGUMENT\",method=\"Embed\",model=\"fake\"} 1"));
}

TEST_F(ServiceTest, ManyClientsAtOnceGetTheirOwnVectors) {
  FakeServer::Options options = Options(absl::Minutes(10));
  options.max_pending_bytes = 1 << 30;  // On a busy machine many calls have been answered and not yet ended.
  const FakeServer server(options);
  const auto stub = v1::EmbeddingService::NewStub(server.Connect());
  std::vector<std::jthread> clients;
  for (int c = 0; c < 8; ++c) {
    clients.emplace_back([&stub, c] {
      for (int i = 0; i < 30; ++i) {
        v1::EmbedRequest request = Request(std::string(c + 1, 'x'));
        request.mutable_options()->set_normalize(false);
        grpc::ClientContext context;
        v1::EmbedResponse response;
        ASSERT_TRUE(stub->Embed(&context, request, &response).ok());
        EXPECT_THAT(response.results(0).embeddings(0).values(), ElementsAre(1 + 11 + c + 2, 3, 3, 1));
      }
    });
  }
}
}  // namespace
}  // namespace longembed
