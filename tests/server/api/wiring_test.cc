// Tests the connections between units that have their own tests: from a field of a request, of a key or of the
// configuration to its effect, and from state to metrics.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <future>
#include <thread>

#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"
#include "server/api/tei/operations.h"
#include "server/errors/errors.h"
#include "server/rpc/unary_host.h"
#include "server/rpc/wire.h"
#include "tests/server/api/service_test.h"

namespace longembed {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A call that its host runs without gRPC.
class HostedCall {
 public:
  HostedCall(const FakeServer& server, const ApiMethod& method, const google::protobuf::Message& request,
             Arrival arrival = {})
      : host_(method, std::move(arrival), server.host(), [this](UnaryHost::Outcome outcome) {
          outcome_.set_value({outcome.status, std::move(outcome.answer)});
        }) {
    host_.Start(SerializeMessage(request));
  }
  absl::Status Status() { return outcome_.get_future().get().first; }

 private:
  std::promise<std::pair<absl::Status, grpc::ByteBuffer>> outcome_;
  UnaryHost host_;
};

class WiringTest : public ServiceTest {
 protected:
  // Occupies the encoder with one call. Returns when the encoder has it.
  std::jthread Occupy() {
    encoder_.CloseGate();
    std::jthread call([this] { Embed(Request("x")); });
    encoder_.AwaitCalls(1);
    return call;
  }
  void AwaitJobs(size_t jobs) {
    while (server_.lane().queue_state().jobs < jobs) absl::SleepFor(absl::Milliseconds(1));
  }
};

TEST_F(WiringTest, PriorityBulkRunsAfterLaterInteractiveCalls) {
  // Makes a sequence whose first token identifies its request.
  const auto request = [](uint32_t id) {
    v1::EmbedRequest request;
    request.add_inputs()->mutable_token_ids()->add_ids(id);
    request.mutable_inputs(0)->mutable_token_ids()->set_complete(true);
    return request;
  };
  std::jthread first = Occupy();
  v1::EmbedRequest bulk = request(50);
  bulk.mutable_options()->set_priority(v1::EmbedOptions::BULK);
  std::jthread second([&] { Embed(bulk); });
  AwaitJobs(1);
  std::jthread third([&] { Embed(request(60)); });
  AwaitJobs(2);
  encoder_.OpenGate();
  first.join(), second.join(), third.join();
  std::vector<int32_t> order;
  for (const auto& batch : encoder_.batches()) order.insert(order.end(), batch.begin(), batch.end());
  EXPECT_THAT(order, ElementsAre(1, 60, 50));
}

TEST_F(WiringTest, TheDeadlineReachesTheQueue) {
  std::jthread first = Occupy();
  const ApiMethod method = EmbedMethod(server_.api());
  HostedCall call(server_, method, Request("a"), {.time_left = absl::Milliseconds(100)});
  AwaitJobs(1);
  absl::SleepFor(absl::Milliseconds(150));
  encoder_.OpenGate();
  EXPECT_EQ(call.Status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(encoder_.batches().size(), 1u);
}

TEST_F(WiringTest, AnAnswerThatIsTooLargeIsRefusedByEveryMethod) {
  FakeServer::Options options = Options(absl::Minutes(10));
  options.config.limits.max_response_bytes = 60;
  FakeServer server(options);
  const auto reason = [&server](const ApiMethod& method, const google::protobuf::Message& request) {
    return ErrorReason(HostedCall(server, method, request).Status());
  };
  v1::ExplainRequest explain;
  v1::TokenizeRequest tokenize;
  for (int i = 0; i < 3; ++i) {
    explain.add_inputs()->set_text("a a a");
    tokenize.add_texts("a a a a a a");
  }
  EXPECT_EQ(reason(EmbedMethod(server.api()), Request("a")), "RESPONSE_TOO_LARGE");
  EXPECT_EQ(reason(ExplainMethod(server.api()), explain), "RESPONSE_TOO_LARGE");
  EXPECT_EQ(reason(TokenizeMethod(server.api()), tokenize), "RESPONSE_TOO_LARGE");
  EXPECT_EQ(reason(ListModelsMethod(server.api()), v1::ListModelsRequest()), "RESPONSE_TOO_LARGE");
  // Neither are there "inputs" in this request, nor vectors in its answer.
  EXPECT_THAT(std::string(HostedCall(server, TokenizeMethod(server.api()), tokenize).Status().message()),
              ::testing::StartsWith("the answer would have "));
  EXPECT_EQ(server.ledger().bytes(), 0);
}

TEST_F(WiringTest, TheTokenizersMemoryIsOnTheLedgerInEveryMethod) {
  const std::string text = absl::StrCat("a", std::string(20'000, ' '), "b");
  v1::ExplainRequest explain;
  explain.add_inputs()->set_text(text);
  v1::TokenizeRequest tokenize;
  tokenize.add_texts(text);
  v1::EmbedRequest partial = Request(text);
  partial.set_partial_results(true);
  tei::v1::EncodeRequest encode;
  encode.set_inputs(text);
  const auto status = [this](const ApiMethod& method, const google::protobuf::Message& request) {
    return HostedCall(server_, method, request).Status();
  };
  const TeiContext tei{server_.api(), *server_.models().models()[0], "", std::nullopt, "1"};
  const auto expect_all = [&](const char* reason) {
    EXPECT_EQ(ErrorReason(status(EmbedMethod(server_.api()), Request(text))), reason);
    EXPECT_EQ(ErrorReason(status(EmbedMethod(server_.api()), partial)), reason);
    EXPECT_EQ(ErrorReason(status(ExplainMethod(server_.api()), explain)), reason);
    EXPECT_EQ(ErrorReason(status(TokenizeMethod(server_.api()), tokenize)), reason);
    EXPECT_EQ(ErrorReason(status(TeiTokenizeMethod("Tokenize", tei), encode)), reason);
  };
  const std::unique_ptr<Charge> other = server_.host().ledger.BeginMessage("someone");
  // Leaves room for the request, but not for the 160,000 bytes that the tokenizer takes.
  ASSERT_TRUE(other->Hold(Memory::kRequests, (4 << 20) - 200'000).ok());
  expect_all("PENDING_BYTES");
  ASSERT_TRUE(other->Hold(Memory::kRequests, 2 << 20).ok());
  expect_all("");
  other->Correct(Memory::kRequests, 0);
  EXPECT_EQ(server_.ledger().bytes(), 0);
}

TEST_F(WiringTest, MemoryThatCallsHoldIsReportedByKindAndReleased) {
  std::jthread first = Occupy();
  const auto held = server_.ledger().held();
  for (const char* kind : {"calls", "requests", "plans", "answers"}) EXPECT_GT(held.at(kind), 0) << kind;
  encoder_.OpenGate();
  first.join();
  for (int i = 0; i < 500 && server_.ledger().bytes() > 0; ++i) absl::SleepFor(absl::Milliseconds(10));
  EXPECT_EQ(server_.ledger().bytes(), 0);
}

class KeyWiringTest : public ::testing::Test {
 protected:
  KeyWiringTest() {
    const std::string path = ::testing::TempDir() + absl::StrCat("/keys-", getpid(), ".yaml");
    std::ofstream(path) << "keys:\n"
                           "  - {name: few-tokens, key: tokens-key, max_queued_tokens: 8}\n"
                           "  - {name: few-calls, key: calls-key, max_concurrent_calls: 1}\n";
    keys_ = *ApiKeyStore::Open(path, [](const absl::Status&) {});
    server_ =
        std::make_unique<FakeServer>(FakeServer::Options{.model = {.max_queued_tokens = 1000}, .api_keys = keys_});
    method_ = EmbedMethod(server_->api());
  }
  std::unique_ptr<HostedCall> Call(const std::string& key) {
    v1::EmbedRequest request;
    request.add_inputs()->set_text("a b c d");
    return std::make_unique<HostedCall>(*server_, method_, request, Arrival{.api_key = key});
  }

  std::shared_ptr<ApiKeyStore> keys_;
  std::unique_ptr<FakeServer> server_;
  ApiMethod method_;
};

TEST_F(KeyWiringTest, AKeysLimitsReachAdmissionAndItsNameReachesTheMetric) {
  server_->encoder().CloseGate();
  const auto running = Call("tokens-key");  // Occupies the encoder.
  server_->encoder().AwaitCalls(1);
  const auto waiting = Call("tokens-key");
  while (server_->lane().queue_state().jobs < 1) absl::SleepFor(absl::Milliseconds(1));
  EXPECT_EQ(ErrorReason(Call("tokens-key")->Status()), "CLIENT_LIMIT");
  const auto only = Call("calls-key");
  EXPECT_EQ(ErrorReason(Call("calls-key")->Status()), "CONCURRENT_CALLS");
  EXPECT_EQ(ErrorReason(Call("other")->Status()), "UNKNOWN_API_KEY");
  server_->encoder().OpenGate();
  EXPECT_TRUE(running->Status().ok());
  EXPECT_TRUE(waiting->Status().ok());
  EXPECT_TRUE(only->Status().ok());
  EXPECT_THAT(server_->metrics().Scrape(), HasSubstr("longembed_client_tokens_total{client=\"few-tokens\"} 12"));
  const std::string rejected = "longembed_rejected_total{model=\"";
  EXPECT_THAT(server_->metrics().Scrape(), HasSubstr(rejected + "fake\",reason=\"client_limit\"} 1\n"));
  // The call was refused before its request was read.
  EXPECT_THAT(server_->metrics().Scrape(), HasSubstr(rejected + "\",reason=\"concurrent_calls\"} 1\n"));
}

TEST_F(KeyWiringTest, RefusedKeysAreCountedByReason) {
  EXPECT_EQ(ErrorReason(Call("other")->Status()), "UNKNOWN_API_KEY");
  EXPECT_EQ(ErrorReason(Call("another")->Status()), "UNKNOWN_API_KEY");
  EXPECT_EQ(ErrorReason(Call("")->Status()), "MISSING_API_KEY");
  EXPECT_TRUE(Call("tokens-key")->Status().ok());
  const std::string failures = "longembed_authentication_failures_total{reason=\"";
  EXPECT_THAT(server_->metrics().Scrape(), HasSubstr(failures + "unknown\"} 2\n"));
  EXPECT_THAT(server_->metrics().Scrape(), HasSubstr(failures + "missing\"} 1\n"));
}

TEST_F(WiringTest, TheMetricReportsTheExpectedWaitOfAdmission) {
  server_.lane().SeedThroughput(100, absl::Seconds(20));  // 0.2 seconds per token.
  std::jthread first = Occupy();
  std::jthread second([this] { Embed(Request("a a a")); });
  AwaitJobs(1);
  const std::string scrape = server_.metrics().Scrape();
  const std::string name = "longembed_expected_wait_seconds{model=\"fake\"} ";
  const double told = std::stod(scrape.substr(scrape.find(name) + name.size()));
  EXPECT_GT(told, 0.1);
  encoder_.OpenGate();
}

}  // namespace
}  // namespace longembed
