#include "server/core/embed_call.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <thread>
#include <utility>

#include "model/errors/errors.h"
#include "model/plan/planner.h"
#include "server/core/call_preparer.h"
#include "server/core/model_registry.h"
#include "server/core/warm_up.h"
#include "tests/testing/fake_call.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fake_encoder.h"
#include "tests/testing/fake_tokenizer.h"

namespace longembed {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

constexpr std::string_view kNoMemory = "no-memory";

class EmbedCallTest : public ::testing::Test {
 protected:
  EmbedCallTest() { Serve(FakeManifest()); }

  void Serve(ModelManifest manifest) {
    auto encoder = std::make_unique<FakeEncoder>();
    encoder_ = encoder.get();
    model_ = std::make_unique<ServedModel>(
        "fake", std::make_unique<const Model>(Model{std::move(manifest), std::make_unique<FakeTokenizer>(kNoMemory)}),
        std::move(encoder), Device{scheduler_, admission_}, ServedModelOptions{.lane = {.batch = {.max_tokens = 100}}},
        metrics_);
  }

  EmbedParams MakeParams(std::vector<absl::StatusOr<Input>> inputs) {
    return {.call = caller_.context(),
            .inputs = std::move(inputs),
            .input_options = {.plan = {.limits = {.max_tokens = 1000, .max_run_tokens = 2000, .max_vectors = 50}}},
            .vector_options = {.dimensions = 4, .normalize = false}};
  }

  static std::string Words(int count) {
    std::string text = "a";
    for (int i = 1; i < count; ++i) text += " a";
    return text;
  }
  // Asks for a vector for each word of a text of up to 10,000 words.
  EmbedParams VectorForEachWord(std::string_view text) {
    EmbedParams params = MakeParams({Input(text)});
    params.input_options.plan.limits = {.max_tokens = 10000, .max_run_tokens = 50000, .max_vectors = 10000};
    params.input_options.plan.extension.windows = Windows{.tokens = 16};
    params.input_options.spans = EveryTokens{1};
    return params;
  }

  std::shared_ptr<EmbedCall> Start(EmbedParams params) {
    auto promise = std::make_shared<std::promise<absl::StatusOr<EmbedAnswer>>>();
    answer_ = promise->get_future();
    return EmbedCall::Start(*model_, *pool_, clock_, std::move(params),
                            [promise](absl::StatusOr<EmbedAnswer> answer) { promise->set_value(std::move(answer)); });
  }

  FakeCall caller_{"a"};
  FakeClock clock_;
  // Declared before the scheduler, whose jobs return their admission when they are destroyed.
  Admission admission_{{}, clock_};
  Scheduler scheduler_{{.workers = 1}, clock_};
  Metrics metrics_{{}};
  FakeEncoder* encoder_ = nullptr;
  std::unique_ptr<ServedModel> model_;
  std::unique_ptr<WorkerPool> pool_ = std::make_unique<WorkerPool>(1, clock_);
  std::future<absl::StatusOr<EmbedAnswer>> answer_;
};

TEST_F(EmbedCallTest, AnswersInOrder) {
  Start(MakeParams({Input(std::string_view("a b")), Input(std::string_view("ccc"))}));
  const auto answer = answer_.get();
  ASSERT_TRUE(answer.ok()) << answer.status();
  ASSERT_EQ(answer->results.size(), 2u);
  EXPECT_THAT(answer->results[0]->vectors.front().values, ElementsAre(1 + 11 + 11 + 2, 4, 4, 1));
  EXPECT_THAT(answer->results[1]->vectors.front().values, ElementsAre(1 + 13 + 2, 3, 3, 1));
  EXPECT_EQ(answer->results[0]->plan.tokens, 4);
  EXPECT_EQ(answer->results[0]->plan.sequences[0].tokens, 4);
  EXPECT_THAT(metrics_.Scrape(), HasSubstr("longembed_tokens_total{model=\"fake\"} 7"));
}

// Finishing and serializing it would count as the encoder's time, and nothing has admitted it to the scheduler's
// threads.
TEST_F(EmbedCallTest, ALargeAnswerIsFinishedByThePool) {
  std::promise<std::thread::id> in_pool;
  pool_->Run([&in_pool] { in_pool.set_value(std::this_thread::get_id()); });
  const std::thread::id pool_thread = in_pool.get_future().get();
  for (const int words : {10, 9000}) {
    const std::string text = Words(words);
    EmbedParams params = VectorForEachWord(text);
    std::promise<std::pair<size_t, std::thread::id>> done;
    EmbedCall::Start(*model_, *pool_, clock_, std::move(params), [&done](const absl::StatusOr<EmbedAnswer>& answer) {
      const size_t vectors = answer.ok() && answer->results[0].ok() ? answer->results[0]->vectors.size() : 0;
      done.set_value({vectors, std::this_thread::get_id()});
    });
    const auto [vectors, thread] = done.get_future().get();
    EXPECT_EQ(vectors, static_cast<size_t>(words));
    EXPECT_EQ(thread == pool_thread, words == 9000) << words;
  }
}

TEST_F(EmbedCallTest, ALargeAnswerThatWaitsForThePoolCanBeCancelled) {
  std::promise<void> entered, left;
  const std::string text = Words(9000);
  EmbedParams params = VectorForEachWord(text);
  encoder_->CloseGate();
  const auto call = Start(std::move(params));
  encoder_->AwaitCalls(1);
  pool_->Run([&] {
    entered.set_value();
    left.get_future().wait();
  });
  entered.get_future().wait();
  encoder_->OpenGate();
  while (pool_->waiting() == 0) std::this_thread::yield();
  call->Cancel();
  left.set_value();
  EXPECT_EQ(answer_.get().status().code(), absl::StatusCode::kCancelled);
}

// Otherwise a call would be refused for its JSON after the model has run.
TEST_F(EmbedCallTest, RoomForTheSerializedAnswerIsFoundBeforeTheModelRuns) {
  const auto held = [this](double growth) {
    EmbedParams params = MakeParams({Input(std::string_view("a b c d e f g h"))});
    params.call.answer_growth = growth;
    params.input_options.spans = EveryTokens{1};
    encoder_->CloseGate();
    const int calls = static_cast<int>(encoder_->batches().size());
    Start(std::move(params));
    encoder_->AwaitCalls(calls + 1);
    const int64_t bytes = caller_.ledger.held().at(MemoryName(Memory::kAnswers));
    encoder_->OpenGate();
    EXPECT_TRUE(answer_.get().ok());
    return bytes;
  };
  const int64_t plain = held(1), wire_bytes = 8 * 4 * 4;
  EXPECT_EQ(held(1.5), plain);  // The encoder's rows take more.
  EXPECT_GE(held(100), plain / 2 + 100 * wire_bytes);
}

TEST_F(EmbedCallTest, TheTokensOfAllSpansOfACallAreBounded) {
  Input input(std::string_view("a b c d e f g h i j"));
  input.ranges = std::vector<Range>(30, Range{0, 19});
  const auto call = [&](int inputs) {
    EmbedParams params = MakeParams(std::vector<absl::StatusOr<Input>>(static_cast<size_t>(inputs), input));
    params.input_options.plan.limits.max_run_tokens = 300;
    params.input_options.plan.limits.max_vectors = 500;
    params.input_options.spans = GivenRanges();
    Start(std::move(params));
    return answer_.get().status();
  };
  EXPECT_TRUE(call(1).ok());
  const absl::Status status = call(2);
  EXPECT_EQ(ErrorReason(status), "TOO_MANY_TOKENS");
  EXPECT_THAT(status.message(), HasSubstr("spans of 600 tokens together"));
}

// The cache of tables holds them, too, until other texts push them out of it.
TEST_F(EmbedCallTest, APlanIsChargedForTheRotaryTablesThatOnlyItUses) {
  RotaryTableCache tables;
  const auto plan = [&tables](int tokens) {
    static const std::vector<int32_t> content(100, 50);
    const auto plan = PlanInput(FakeRopeManifest(), {.content = std::span(content).first(static_cast<size_t>(tokens))},
                                {.extension = {.windows = std::nullopt}}, tables);
    EXPECT_TRUE(plan.ok()) << plan.status();
    return *plan;
  };
  const Plan first = plan(10), second = plan(10);
  const RotaryTable& table = *first.sequences[0].sequence.rotary;
  const auto bytes = static_cast<int64_t>((table.cos.capacity() + table.sin.capacity()) * sizeof(float));
  ASSERT_GT(bytes, 0);
  const int64_t shared = PlanBytes(first);
  EXPECT_EQ(PlanBytes(second), shared);
  const Plan alone = plan(12);
  EXPECT_GE(PlanBytes(alone), shared + bytes);
}

TEST_F(EmbedCallTest, OneBadInputFailsTheCall) {
  Start(MakeParams({Input(std::string_view("a")), Input(std::string_view(""))}));
  const auto answer = answer_.get();
  EXPECT_EQ(ErrorReason(answer.status()), "EMPTY_INPUT");
  EXPECT_EQ(ErrorField(answer.status()), "inputs[1]");
  EXPECT_THAT(encoder_->batches(), IsEmpty());
}

TEST_F(EmbedCallTest, AnUnusableVectorIsNamedAndNeverSent) {
  // The fake tokenizer's id is 10 + the number of letters.
  const std::string broken(FakeEncoder::kBrokenToken - 10, 'x');
  Start(MakeParams({Input(std::string_view("a")), Input(std::string_view(broken))}));
  const auto failed = answer_.get();
  EXPECT_EQ(ErrorReason(failed.status()), "UNUSABLE_VECTOR");
  EXPECT_EQ(ErrorField(failed.status()), "inputs[1]");
  EmbedParams params = MakeParams({Input(std::string_view("a")), Input(std::string_view(broken))});
  params.partial_results = true;
  Start(std::move(params));
  const auto answer = answer_.get();
  ASSERT_TRUE(answer.ok());
  EXPECT_TRUE(answer->results[0].ok());
  EXPECT_EQ(ErrorField(answer->results[1].status()), "inputs[1]");
}

TEST_F(EmbedCallTest, WithPartialResultsABadInputFailsAlone) {
  EmbedParams params = MakeParams({Input(std::string_view("")), Input(std::string_view("bb"))});
  params.partial_results = true;
  Start(std::move(params));
  const auto answer = answer_.get();
  ASSERT_TRUE(answer.ok());
  EXPECT_EQ(ErrorReason(answer->results[0].status()), "EMPTY_INPUT");
  EXPECT_THAT(answer->results[1]->vectors.front().values, ElementsAre(15, 3, 3, 1));
}

TEST_F(EmbedCallTest, WhenEveryInputFailsAloneNothingRuns) {
  EmbedParams params = MakeParams({Input(std::string_view(""))});
  params.partial_results = true;
  Start(std::move(params));
  const auto answer = answer_.get();
  ASSERT_TRUE(answer.ok());
  EXPECT_FALSE(answer->results[0].ok());
  EXPECT_THAT(encoder_->batches(), IsEmpty());
}

TEST_F(EmbedCallTest, TheServersTokenLimitAppliesAfterTruncation) {
  EmbedParams params = MakeParams({Input(std::string_view("a a a a a a a a a a a a a a a a a a a a"))});
  params.input_options.plan.truncate = Truncate::kEnd;
  params.input_options.plan.limits.max_tokens = 21;
  Start(std::move(params));
  const auto answer = answer_.get();
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->results[0]->plan.truncated_tokens, 6);
  EXPECT_THAT(metrics_.Scrape(), HasSubstr("longembed_truncated_tokens_total{model=\"fake\"} 6"));
}

TEST_F(EmbedCallTest, TheServersTokenLimitHoldsWithoutTruncation) {
  EmbedParams params = MakeParams({Input(std::string_view("a a a a a a a a a a a a a a a a a a a a"))});
  params.input_options.plan.limits.max_tokens = 21;
  Start(std::move(params));
  EXPECT_EQ(ErrorReason(answer_.get().status()), "INPUT_BEYOND_SERVER_LIMIT");
}

std::vector<std::string> NamesOf(const RequestTrace& trace) {
  std::vector<std::string> names;
  for (const RequestTrace::Phase& phase : trace.phases()) names.emplace_back(phase.name);
  return names;
}

TEST_F(EmbedCallTest, ATracedCallRecordsItsPhasesAndCounts) {
  RequestTrace trace(clock_.Now());
  caller_.trace = &trace;
  std::promise<void> release;
  pool_->Run([&release] { release.get_future().wait(); });
  encoder_->CloseGate();
  Start(MakeParams({Input(std::string_view("a b")), Input(std::string_view("c"))}));
  clock_.Advance(absl::Seconds(1));
  release.set_value();
  encoder_->AwaitCalls(1);
  clock_.Advance(absl::Seconds(2));
  encoder_->OpenGate();
  ASSERT_TRUE(answer_.get().ok());
  EXPECT_THAT(NamesOf(trace),
              ElementsAre("receive", "admission", "tokenize.wait", "tokenize", "queue", "inference", "finish"));
  const auto phases = trace.phases();
  EXPECT_EQ(phases[3].start - phases[2].start, absl::Seconds(1));
  EXPECT_EQ(phases[6].start - phases[5].start, absl::Seconds(2));
  EXPECT_EQ(trace.inputs, 2);
  EXPECT_EQ(trace.tokens, 7);
  EXPECT_EQ(trace.sequences, 2);
  EXPECT_EQ(trace.method, "");
  const std::string metrics = metrics_.Scrape();
  EXPECT_THAT(metrics, HasSubstr("longembed_sequences_total{method=\"plain\",model=\"fake\"} 2"));
  EXPECT_THAT(metrics, HasSubstr("longembed_inputs_total{model=\"fake\"} 2\n"));
  EXPECT_THAT(metrics, HasSubstr("longembed_tokenization_wait_seconds_sum{model=\"fake\"} 1\n"));
  EXPECT_THAT(metrics, HasSubstr("longembed_tokenization_duration_seconds_sum{model=\"fake\"} 0\n"));
  EXPECT_THAT(metrics, HasSubstr("longembed_tokenization_duration_seconds_count{model=\"fake\"} 1\n"));
  EXPECT_THAT(metrics, HasSubstr("longembed_inference_duration_seconds_sum{model=\"fake\"} 2\n"));
  EXPECT_THAT(metrics, HasSubstr("longembed_batch_tokens_sum{model=\"fake\"} 7\n"));
  EXPECT_THAT(metrics, HasSubstr("longembed_batch_sequences_sum{model=\"fake\"} 2\n"));
}

TEST_F(EmbedCallTest, TheTimeInTheQueueIsObserved) {
  encoder_->CloseGate();
  Start(MakeParams({Input(std::string_view("a"))}));
  encoder_->AwaitCalls(1);
  std::future<absl::StatusOr<EmbedAnswer>> running = std::move(answer_);
  Start(MakeParams({Input(std::string_view("b"))}));
  pool_.reset();  // Joins the threads, so that the call has its job.
  clock_.Advance(absl::Seconds(4));
  encoder_->OpenGate();
  EXPECT_TRUE(running.get().ok());
  EXPECT_TRUE(answer_.get().ok());
  EXPECT_THAT(metrics_.Scrape(), HasSubstr("longembed_queue_duration_seconds_sum{model=\"fake\"} 4\n"));
  EXPECT_THAT(metrics_.Scrape(), HasSubstr("longembed_queue_duration_seconds_count{model=\"fake\"} 2\n"));
}

TEST_F(EmbedCallTest, FailuresOfTheEncoderAreCounted) {
  for (const absl::Status& failure : {EncoderFailed("the device fell off the bus"), EncoderOutOfMemory("the batch")}) {
    encoder_->FailWith(failure);
    Start(MakeParams({Input(std::string_view("a"))}));
    const absl::Status status = answer_.get().status();
    EXPECT_EQ(ErrorReason(status), ErrorReason(failure));
    EXPECT_THAT(std::string(status.message()), StartsWith(std::string(failure.message())));
    EXPECT_EQ(RetryDelay(status).has_value(), IsOutOfMemory(failure));  // Less memory may be in use later.
    // Too little memory is not a failure of the encoder.
    EXPECT_THAT(metrics_.Scrape(), HasSubstr("longembed_encoder_failures_total{model=\"fake\"} 1\n"));
  }
}

TEST_F(EmbedCallTest, ATracedCallThatEndsInTheQueueRanNoInference) {
  encoder_->CloseGate();
  Start(MakeParams({Input(std::string_view("a"))}));
  encoder_->AwaitCalls(1);
  std::future<absl::StatusOr<EmbedAnswer>> running = std::move(answer_);
  RequestTrace trace(clock_.Now());
  caller_.trace = &trace;
  const auto call = Start(MakeParams({Input(std::string_view("b"))}));
  pool_.reset();  // Joins the threads, so that the call has its job.
  call->Cancel();
  EXPECT_EQ(answer_.get().status().code(), absl::StatusCode::kCancelled);
  EXPECT_THAT(NamesOf(trace), ElementsAre("receive", "admission", "tokenize.wait", "tokenize", "queue", "finish"));
  encoder_->OpenGate();
  EXPECT_TRUE(running.get().ok());
}

TEST_F(EmbedCallTest, ACancelledCallNeverReachesTheEncoder) {
  std::promise<void> release;
  pool_->Run([&release] { release.get_future().wait(); });
  const auto call = Start(MakeParams({Input(std::string_view("a"))}));
  call->Cancel();
  release.set_value();
  EXPECT_EQ(answer_.get().status().code(), absl::StatusCode::kCancelled);
  EXPECT_THAT(encoder_->batches(), IsEmpty());
}

// The place is returned at once, not only when a thread reaches the call.
TEST_F(EmbedCallTest, ACancelledCallReleasesItsPermitAtOnce) {
  std::promise<void> release;
  pool_->Run([&release] { release.get_future().wait(); });
  caller_.caller.max_queued_tokens = 10;
  EmbedParams params = MakeParams({Input(std::string_view("a b c"))});
  const auto call = Start(params);
  EXPECT_EQ(admission_.Admit(model_->budget(), {.client = "a", .max_client_tokens = 10, .tokens = 8}).status().code(),
            absl::StatusCode::kResourceExhausted);
  call->Cancel();
  EXPECT_TRUE(admission_.Admit(model_->budget(), {.client = "a", .max_client_tokens = 10, .tokens = 8}).ok());
  release.set_value();
  EXPECT_EQ(answer_.get().status().code(), absl::StatusCode::kCancelled);
}

// The ledger holds a call's memory by kind, and nothing after the call has ended.
TEST_F(EmbedCallTest, ChargesForPlansAndAnswers) {
  encoder_->CloseGate();
  Start(MakeParams({Input(std::string_view("a b c d e"))}));
  encoder_->AwaitCalls(1);
  EXPECT_GE(caller_.ledger.held().at("plans"), 7 * static_cast<int64_t>(sizeof(int32_t)));
  EXPECT_GE(caller_.ledger.held().at("answers"), 2 * 4 * static_cast<int64_t>(sizeof(float)));
  encoder_->OpenGate();
  EXPECT_TRUE(answer_.get().ok());
}

TEST_F(EmbedCallTest, ACallThatFindsNoMemoryOnTheLedgerIsRefused) {
  FakeCall small("small", 100);
  const std::unique_ptr<Charge> other = small.ledger.BeginMessage("other");
  ASSERT_TRUE(other->Hold(Memory::kRequests, 90).ok());
  EmbedParams params = MakeParams({Input(std::string_view("a b c d e"))});
  EmbedParams refused{.call = small.context(),
                      .inputs = params.inputs,
                      .input_options = params.input_options,
                      .vector_options = params.vector_options};
  Start(std::move(refused));
  const absl::Status status = answer_.get().status();
  EXPECT_EQ(ErrorReason(status), "PENDING_BYTES");
  EXPECT_THAT(encoder_->batches(), IsEmpty());
}

// An input that was already refused keeps its error in its place, and the other inputs keep their numbers.
TEST_F(EmbedCallTest, AnInputThatIsAnErrorStaysInItsPlace) {
  EmbedParams params = MakeParams(
      {absl::InvalidArgumentError("no content"), Input(std::string_view("")), Input(std::string_view("bb"))});
  params.partial_results = true;
  Start(std::move(params));
  const auto answer = answer_.get();
  ASSERT_TRUE(answer.ok());
  EXPECT_EQ(answer->results[0].status().message(), "no content");
  EXPECT_EQ(ErrorField(answer->results[1].status()), "inputs[1]");
  EXPECT_TRUE(answer->results[2].ok());
}

// Waiting for a thread counts as waiting.
TEST_F(EmbedCallTest, TheQueueTimeHasTheWaitForAThreadInIt) {
  std::promise<void> release;
  pool_->Run([&release] { release.get_future().wait(); });
  Start(MakeParams({Input(std::string_view("a"))}));
  clock_.Advance(absl::Seconds(3));
  release.set_value();
  const auto answer = answer_.get();
  ASSERT_TRUE(answer.ok());
  EXPECT_GE(answer->queue, absl::Seconds(3));
}

// The calls of the warm-up are measured, too.
TEST_F(EmbedCallTest, WarmingUpMeasuresThroughput) {
  EXPECT_EQ(model_->lane().WorkOf(1000), absl::ZeroDuration());
  ASSERT_TRUE(WarmUp(*model_).ok());
  EXPECT_GT(model_->lane().WorkOf(1000), absl::ZeroDuration());
}

TEST_F(EmbedCallTest, OutOfMemoryFailsTheCall) {
  Start(MakeParams({Input(std::string_view("a")), Input(kNoMemory)}));
  EXPECT_EQ(ErrorReason(answer_.get().status()), "OUT_OF_MEMORY");
  Start(MakeParams({Input(std::string_view("a"))}));
  EXPECT_TRUE(answer_.get().ok());
}

// Token ids, prompts and special tokens must not count, and a single call must not count much.
TEST_F(EmbedCallTest, UpdatesTokensPerByte) {
  const double before = model_->tokens_per_byte();
  const std::vector<uint32_t> ids(900, 11);
  const auto embed = [this](std::vector<absl::StatusOr<Input>> inputs) {
    EmbedParams params = MakeParams(std::move(inputs));
    params.input_options.plan.truncate = Truncate::kEnd;
    Start(std::move(params));
    ASSERT_TRUE(answer_.get().ok());
  };
  embed({Input(std::string_view("aaaaaaaaa")), Input(TokenIds{.ids = ids})});
  EXPECT_NEAR(model_->tokens_per_byte(), before, 0.01);
  std::string text;  // One token per ten bytes.
  while (text.size() < 4000) text += "aaaaaaaaa ";
  for (int i = 0; i < 200; ++i) embed({Input(std::string_view(text))});

  EXPECT_NEAR(model_->tokens_per_byte(), 0.1, 0.01);
}

// They are lengthened to a fixed number of tokens, whatever their bytes.
TEST_F(EmbedCallTest, QueriesOfTokenVectorsDoNotChangeTokensPerByte) {
  ModelManifest manifest = FakeManifest();
  manifest.token_vectors = {.query_tokens = 16, .expansion_tokens = 16, .expansion_token = 50};
  Serve(manifest);
  const double before = model_->tokens_per_byte();
  for (int i = 0; i < 100; ++i) {
    EmbedParams params = MakeParams({Input(std::string_view("aaaaaaaaa"))});
    params.input_options.plan.token_vectors = TokenVectors::kQuery;
    Start(std::move(params));
    const absl::StatusOr<EmbedAnswer> answer = answer_.get();
    ASSERT_TRUE(answer.ok()) << answer.status();
    EXPECT_EQ(answer->results[0]->plan.tokens, 16);
  }
  EXPECT_EQ(model_->tokens_per_byte(), before);
}

TEST_F(EmbedCallTest, ACallThatIsCancelledWhileItRunsIsStopped) {
  encoder_->CloseGate();
  const auto call = Start(MakeParams({Input(std::string_view("a"))}));
  encoder_->AwaitCalls(1);
  pool_.reset();  // Joins the threads, so that the call knows its job.
  call->Cancel();
  EXPECT_EQ(answer_.get().status().code(), absl::StatusCode::kCancelled);
  encoder_->OpenGate();
  EXPECT_TRUE(model_->lane().WaitIdle(absl::InfiniteDuration()));
}

TEST_F(EmbedCallTest, ADeadlineThatPassesBeforeTokenizingEndsTheCall) {
  std::promise<void> release;
  pool_->Run([&release] { release.get_future().wait(); });
  EmbedParams params = MakeParams({Input(std::string_view("a"))});
  params.call.deadline = clock_.Now() + absl::Milliseconds(1);
  Start(std::move(params));
  clock_.Advance(absl::Milliseconds(5));
  release.set_value();
  EXPECT_EQ(answer_.get().status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(encoder_->batches(), IsEmpty());
}

TEST_F(EmbedCallTest, ModelsAreFoundByName) {
  ModelRegistry registry;
  ASSERT_TRUE(registry.Add(std::move(model_)).ok());
  EXPECT_EQ((*registry.Find("", "options.model"))->name(), "fake");
  EXPECT_EQ((*registry.Find("fake", "options.model"))->name(), "fake");
  const absl::Status unknown = registry.Find("e5", "options.model").status();
  EXPECT_EQ(unknown.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ErrorField(unknown), "options.model");
  EXPECT_THAT(std::string(unknown.message()), HasSubstr("fake"));
}

}  // namespace
}  // namespace longembed
