#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/telemetry/call_trace.h"
#include "system/mutex.h"

namespace longembed {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

constexpr char kTrace[] = "0af7651916cd43dd8448eb211c80319c", kParent[] = "b7ad6b7169203331";
const absl::Time kArrival = absl::UnixEpoch() + absl::Hours(1);

// Stores the spans that it is given.
class FakeSender final : public SpanSender {
 public:
  absl::StatusOr<int64_t> Send(std::span<const Span> spans) override {
    MutexLock lock(mutex_);
    ++sends_;
    changed_.NotifyAll();
    changed_.Wait(lock, [this] { return open_ || cancelled_; });
    if (cancelled_) return absl::CancelledError("cancelled");
    if (!failure_.ok()) return failure_;
    spans_.insert(spans_.end(), spans.begin(), spans.end());
    return rejects_;
  }
  void Cancel() override {
    const MutexLock lock(mutex_);
    cancelled_ = true;
    changed_.NotifyAll();
  }

  void Stall() {
    const MutexLock lock(mutex_);
    open_ = false;
  }
  void AwaitSend() {
    MutexLock lock(mutex_);
    changed_.Wait(lock, [this] { return sends_ > 0; });
  }
  void FailWith(absl::Status failure, int64_t rejects = 0) {
    const MutexLock lock(mutex_);
    failure_ = std::move(failure);
    rejects_ = rejects;
  }
  std::vector<Span> spans() {
    const MutexLock lock(mutex_);
    return spans_;
  }
  int sends() {
    const MutexLock lock(mutex_);
    return sends_;
  }

 private:
  Mutex mutex_;
  ConditionVariable changed_;
  bool open_ = true, cancelled_ = false;
  int sends_ = 0;
  absl::Status failure_;
  int64_t rejects_ = 0;
  std::vector<Span> spans_;
};

class TracingTest : public ::testing::Test {
 protected:
  void Make(const SpanExporterOptions& options = {.max_delay = absl::Hours(1)}) {
    exporter_ = std::make_unique<SpanExporter>(options, sender_, [this](const char* reason, int64_t count) {
      const MutexLock lock(mutex_);
      dropped_[reason] += count;
    });
  }
  std::map<std::string, int64_t> dropped() {
    const MutexLock lock(mutex_);
    return dropped_;
  }
  std::vector<Span> Sent() {
    EXPECT_TRUE(exporter_->Flush(absl::Seconds(20)));
    return sender_.spans();
  }
  static std::string Header(const std::string& flags) { return absl::StrCat("00-", kTrace, "-", kParent, "-", flags); }

  FakeSender sender_;
  Mutex mutex_;
  std::map<std::string, int64_t> dropped_;
  std::unique_ptr<SpanExporter> exporter_;
};

TEST(TraceparentTest, IsReadByTheSpecification) {
  const std::string rest = absl::StrCat("-", kTrace, "-", kParent, "-01");
  const auto parent = ParseTraceparent("00" + rest);
  ASSERT_TRUE(parent.has_value());
  EXPECT_EQ(ToHex(parent->trace_id), kTrace);
  EXPECT_EQ(ToHex(parent->span_id), kParent);
  EXPECT_TRUE(parent->sampled);
  EXPECT_FALSE(ParseTraceparent(absl::StrCat("00-", kTrace, "-", kParent, "-02"))->sampled);
  EXPECT_TRUE(ParseTraceparent(absl::StrCat("00-", kTrace, "-", kParent, "-03"))->sampled);
  EXPECT_TRUE(ParseTraceparent("cc" + rest + "-what-comes-later").has_value());
  for (const std::string& bad :
       {std::string(), rest, "ff" + rest, "0g" + rest, "00" + rest + "-more", "00" + rest + "0", "cc" + rest + "more",
        absl::StrCat("00-", std::string(32, '0'), "-", kParent, "-01"),
        absl::StrCat("00-", kTrace, "-", std::string(16, '0'), "-01"),
        absl::StrCat("00-0AF7651916CD43DD8448EB211C80319C-", kParent, "-01"),
        absl::StrCat("00-", kTrace, "-", kParent, "-0x"), absl::StrCat("00-", kTrace, "_", kParent, "-01")}) {
    EXPECT_FALSE(ParseTraceparent(bad).has_value()) << bad;
  }
}

TEST_F(TracingTest, TheCallerDecidesOrElseTheSampleRatioDoes) {
  Make();
  const Tracer none(0, *exporter_), all(1, *exporter_), half(0.5, *exporter_);
  EXPECT_EQ(none.Begin("", kArrival), nullptr);
  EXPECT_EQ(none.Begin("nonsense", kArrival), nullptr);
  EXPECT_EQ(all.Begin(Header("00"), kArrival), nullptr);
  EXPECT_EQ(ToHex(none.Begin(Header("01"), kArrival)->trace_id()), kTrace);
  EXPECT_NE(ToHex(all.Begin("nonsense", kArrival)->trace_id()), kTrace);
  int traced = 0;
  for (int i = 0; i < 1000; ++i) traced += half.Begin("", kArrival) != nullptr ? 1 : 0;
  EXPECT_GT(traced, 350);
  EXPECT_LT(traced, 650);
}

TEST_F(TracingTest, PhasesFollowEachOtherBelowTheCall) {
  Make();
  const absl::Time before = absl::Now();
  const auto call = Tracer(0, *exporter_).Begin(Header("01"), kArrival);
  RequestTrace request(kArrival + absl::Milliseconds(1));
  request.Begin(phase::kAdmission, kArrival + absl::Milliseconds(3));
  request.Begin(phase::kQueue, kArrival + absl::Milliseconds(7));
  request.tokens = 12;
  request.sequences = 2;
  call->EndCall("Embed", {.model = "m", .attributes = {{"rpc.system", std::string("grpc")}}}, &request,
                kArrival + absl::Milliseconds(20));
  const std::vector<Span> spans = Sent();
  ASSERT_EQ(spans.size(), 4u);
  const Span& server = spans[0];
  EXPECT_EQ(server.name, "Embed");
  EXPECT_TRUE(server.is_server);
  EXPECT_FALSE(server.is_error);
  EXPECT_EQ(ToHex(server.parent), kParent);
  EXPECT_EQ(server.end - server.start, absl::Milliseconds(20));
  EXPECT_GE(server.start, before);  // The time is that of the wall clock.
  EXPECT_THAT(server.attributes, Contains(Pair(std::string("rpc.system"), AttributeValue("grpc"))));
  EXPECT_THAT(server.attributes, Contains(Pair(std::string("gen_ai.request.model"), AttributeValue("m"))));
  EXPECT_THAT(server.attributes, Contains(Pair(std::string("gen_ai.usage.input_tokens"), AttributeValue(12))));
  EXPECT_THAT(server.attributes, Contains(Pair(std::string("longembed.method"), AttributeValue("plain"))));
  std::vector<std::string> names;
  absl::Time end = server.start + absl::Milliseconds(1);
  for (size_t i = 1; i < spans.size(); ++i) {
    names.push_back(spans[i].name);
    EXPECT_EQ(spans[i].start, end);
    EXPECT_EQ(spans[i].parent, server.id);
    EXPECT_EQ(ToHex(spans[i].trace_id), kTrace);
    EXPECT_FALSE(spans[i].is_server);
    end = spans[i].end;
  }
  EXPECT_EQ(end, server.end);
  EXPECT_THAT(names, ElementsAre("receive", "admission", "queue"));
}

TEST_F(TracingTest, AnErrorIsItsReasonAndNothingElse) {
  Make();
  const auto call = Tracer(1, *exporter_).Begin("", kArrival);
  call->EndCall("Embed", {.code = absl::StatusCode::kNotFound, .reason = "UNKNOWN_MODEL"}, nullptr, kArrival);
  const std::vector<Span> spans = Sent();
  ASSERT_EQ(spans.size(), 1u);
  EXPECT_EQ(spans[0].parent, SpanId{});
  EXPECT_TRUE(spans[0].is_error);
  EXPECT_EQ(spans[0].error, "UNKNOWN_MODEL");
  EXPECT_THAT(spans[0].attributes,
              UnorderedElementsAre(Pair(std::string("error.type"), AttributeValue("NOT_FOUND")),
                                   Pair(std::string("longembed.reason"), AttributeValue("UNKNOWN_MODEL"))));
}

TEST_F(TracingTest, AStreamHasItsFirstMessagesBelowItAndCountsAll) {
  Make();
  const auto call = Tracer(1, *exporter_).Begin("", kArrival);
  RequestTrace request(kArrival);
  request.tokens = 3;
  const int64_t messages = CallTrace::kMaxMessages + 5;
  for (int i = 0; i < messages; ++i) call->EndMessage(request, absl::OkStatus(), "", kArrival + absl::Seconds(1));
  call->EndCall("EmbedStream", {}, nullptr, kArrival + absl::Seconds(2));
  const std::vector<Span> spans = Sent();
  ASSERT_EQ(spans.size(), static_cast<size_t>(2 * CallTrace::kMaxMessages + 1));
  const Span& stream = spans.back();
  EXPECT_EQ(spans[0].name, "message");
  EXPECT_EQ(spans[0].parent, stream.id);
  EXPECT_EQ(spans[1].parent, spans[0].id);
  EXPECT_THAT(stream.attributes, Contains(Pair(std::string("longembed.messages"), AttributeValue(messages))));
  EXPECT_THAT(stream.attributes,
              Contains(Pair(std::string("gen_ai.usage.input_tokens"), AttributeValue(3 * messages))));
}

TEST_F(TracingTest, AFullQueueDropsWholeCallsAndNeverWaits) {
  Make({.capacity = 10, .max_batch = 4, .max_delay = absl::Hours(1)});
  sender_.Stall();
  exporter_->Add(std::vector<Span>(4));
  sender_.AwaitSend();  // The spans sent here have left the queue.
  exporter_->Add(std::vector<Span>(8));
  exporter_->Add(std::vector<Span>(3));
  exporter_->Add(std::vector<Span>(2));
  EXPECT_THAT(dropped(), ElementsAre(Pair("queue_full", 3)));
  EXPECT_FALSE(exporter_->Flush(absl::Milliseconds(1)));
  exporter_.reset();  // Destroying the exporter must not wait for the collector.
  EXPECT_THAT(dropped(), UnorderedElementsAre(Pair("queue_full", 3), Pair("export_failed", 4), Pair("shutdown", 10)));
}

TEST_F(TracingTest, SpansThatAreNotTakenAreCounted) {
  Make();
  sender_.FailWith(absl::UnavailableError("nobody there"));
  exporter_->Add(std::vector<Span>(5));
  EXPECT_TRUE(exporter_->Flush(absl::Seconds(20)));
  sender_.FailWith(absl::OkStatus(), /*rejects=*/2);
  exporter_->Add(std::vector<Span>(3));
  EXPECT_TRUE(exporter_->Flush(absl::Seconds(20)));
  EXPECT_THAT(dropped(), UnorderedElementsAre(Pair("export_failed", 5), Pair("rejected", 2)));
}

TEST_F(TracingTest, SpansGoInBatchesAndWithoutAFlush) {
  Make({.max_batch = 3, .max_delay = absl::Hours(1)});
  exporter_->Add(std::vector<Span>(3));
  sender_.AwaitSend();
  exporter_->Add(std::vector<Span>(7));
  EXPECT_EQ(Sent().size(), 10u);
  EXPECT_EQ(sender_.sends(), 4);
  EXPECT_THAT(dropped(), IsEmpty());
  Make({.max_delay = absl::Milliseconds(1)});
  exporter_->Add(std::vector<Span>(1));
  while (sender_.sends() < 5) absl::SleepFor(absl::Milliseconds(1));
}

}  // namespace
}  // namespace longembed
