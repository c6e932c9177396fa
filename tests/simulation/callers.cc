#include "tests/simulation/callers.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "longembed/v1/embedding.pb.h"
#include "model/errors/errors.h"
#include "server/api/longembed/embed_stream.h"
#include "server/errors/errors.h"
#include "server/rpc/unary_host.h"
#include "server/rpc/wire.h"
#include "tei/v1/tei.pb.h"

namespace longembed {
namespace {

Arrival ArrivalOf(SimulatedServer& server, const std::string& client, absl::Duration time_left) {
  const int64_t port = server.random().Between(1000, 9999);
  return {.address = absl::StrCat("ipv4:", client, ":", port), .time_left = time_left};
}

void SetOptions(int model, bool bulk, v1::EmbedOptions& options) {
  options.set_model(absl::StrCat("model", model));
  options.set_normalize(false);
  options.mutable_extension()->mutable_windows()->set_last(v1::Extension::Windows::SHORT);
  if (bulk) options.set_priority(v1::EmbedOptions::BULK);
}

// Checks that a refusal for overload has a retry delay. The delay is at most one minute plus jitter.
void CheckRefusal(const absl::Status& status, Checker& checker) {
  if (absl::IsUnknown(status)) checker.Violate("an error has no message");
  if (!absl::IsResourceExhausted(status)) return;
  const std::optional<absl::Duration> delay = RetryDelay(status);
  if (!delay.has_value() || *delay <= absl::ZeroDuration() || *delay > absl::Seconds(80)) {
    checker.Violate(absl::StrCat("a refusal has no retry delay, or a wrong one: ", status.message()));
  }
}

void CheckVector(const Text& text, const google::protobuf::RepeatedField<float>& values, Checker& checker) {
  if (text.sequences.empty()) return checker.Violate("a text that has no vector was embedded");
  if (values.empty() || !(std::abs(values[0] - text.value) <= 1e-5 * text.value)) {
    checker.Violate("an answer is not that of its text");
  }
}

void CheckResult(const Text& text, const v1::EmbedResult& result, bool window_vectors, bool faulty, Checker& checker) {
  if (result.has_error()) {
    if (!text.sequences.empty() && !faulty) checker.Violate("a good text got an error");
    return;
  }
  const int vectors = window_vectors ? static_cast<int>(text.sequences.size()) : 1;
  if (result.embeddings_size() != vectors) return checker.Violate("an answer has too many vectors, or too few");
  if (window_vectors) return;
  CheckVector(text, result.embeddings(0).values(), checker);
}

absl::Duration ToDuration(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

class UnaryCaller : public std::enable_shared_from_this<UnaryCaller> {
 public:
  UnaryCaller(SimulatedServer& server, UnarySpec spec)
      : server_(server), checker_(server.checker()), spec_(std::move(spec)) {
    call_->client = spec_.client;
    call_->model = spec_.model;
    call_->interactive = !spec_.bulk;
    call_->deadline = server_.loop().Now() + spec_.time_left;
    for (const Words& words : spec_.texts) {
      call_->texts.push_back(checker_.MakeText(words, spec_.tokenize ? Shape::kTokens : Shape::kWindows));
      if (!words.empty()) call_->texts.back()->text += std::string(spec_.blanks, ' ');
    }
    call_->texts.back()->poison = spec_.poison;
    request_ = spec_.tokenize ? TokenizeRequest() : EmbedRequest();
    call_->request_bytes = static_cast<int64_t>(request_.Length());
  }

  void Start() {
    server_.CountOpen(+1, call_->request_bytes);
    checker_.Begin(call_);
    server_.CountHeld(+1, 0);
    auto self = shared_from_this();
    host_ = std::make_unique<UnaryHost>(spec_.tokenize ? server_.tokenize() : server_.embed(),
                                        ArrivalOf(server_, spec_.client, spec_.time_left), server_.host(),
                                        [this, self](UnaryHost::Outcome outcome) { End(std::move(outcome)); });
    server_.before_call();
    host_->Start(std::move(request_));
    if (ended_) return;
    checker_.JoinTokenizer(*call_);
    // gRPC reports an expired deadline slightly late.
    CancelAfter(spec_.time_left + server_.random().UpTo(absl::Milliseconds(5)));
    CancelAfter(spec_.cancel_after);
  }

 private:
  grpc::ByteBuffer EmbedRequest() const {
    v1::EmbedRequest request;
    SetOptions(spec_.model, spec_.bulk, *request.mutable_options());
    request.set_partial_results(spec_.partial_results);
    if (spec_.window_vectors) request.mutable_options()->set_output(v1::EmbedOptions::WINDOW_VECTORS);
    for (const auto& text : call_->texts) request.add_inputs()->set_text(text->text);
    return SerializeMessage(request);
  }

  grpc::ByteBuffer TokenizeRequest() const {
    v1::TokenizeRequest request;
    request.set_model(absl::StrCat("model", spec_.model));
    for (const auto& text : call_->texts) request.add_texts(text->text);
    return SerializeMessage(request);
  }

  void CancelAfter(absl::Duration delay) {
    if (delay == absl::InfiniteDuration()) return;
    server_.loop().After(delay, [this, self = shared_from_this()] {
      if (ended_) return;
      cancelled_ = true;
      host_->Cancel();
      checker_.End(*call_);
    });
  }

  void End(UnaryHost::Outcome outcome) {
    server_.at_answer(true);
    if (std::exchange(ended_, true)) checker_.Violate("a call was finished twice");
    server_.CountOpen(-1, -call_->request_bytes);
    checker_.LeaveTokenizer(*call_);
    CheckRefusal(outcome.status, checker_);
    CheckStatus(outcome.status);
    if (outcome.status.ok()) spec_.tokenize ? CheckTokens(outcome.answer) : CheckAnswer(outcome.answer);
    checker_.End(*call_);
    server_.at_answer(false);
    TakeAnswer(outcome);
    if (spec_.then) spec_.then(outcome.status, server_.loop().Now() - call_->began);
  }

  void CheckStatus(const absl::Status& status) {
    const bool empty = std::ranges::any_of(spec_.texts, [](const Words& words) { return words.empty(); });
    const absl::StatusCode code = status.code();
    if (status.ok() && empty && !spec_.tokenize && !spec_.partial_results)
      checker_.Violate("a text without tokens was embedded");
    if (code == absl::StatusCode::kInvalidArgument && (!empty || spec_.partial_results)) {
      checker_.Violate(absl::StrCat("a good call is called invalid: ", status.message()));
    }
    // A client that resets its call shortly before the deadline is late, too (server/rpc/call_record.cc).
    const absl::Duration early =
        cancelled_ ? std::max(absl::Milliseconds(10), 0.01 * (call_->deadline - call_->began)) : absl::ZeroDuration();
    if (code == absl::StatusCode::kDeadlineExceeded && call_->deadline > server_.loop().Now() + early) {
      checker_.Violate("an error says that a deadline has passed, but it has not");
    }
    if (code == absl::StatusCode::kCancelled && !cancelled_) checker_.Violate("a call was cancelled without a request");
    if (server_.options().faulty()) return;
    if (status.ok() && spec_.poison && !spec_.tokenize && !spec_.texts.back().empty()) {
      checker_.Violate("a call succeeded although its batches failed");
    }
    if (code == absl::StatusCode::kUnavailable || (code == absl::StatusCode::kInternal && !spec_.poison)) {
      checker_.Violate(absl::StrCat("a call failed: ", status.message()));
    }
    // An otherwise idle server must not refuse anything, unless a client has not taken its answers yet.
    if (absl::IsResourceExhausted(status) && call_->alone && !server_.options().small_ledger() &&
        (!spec_.tokenize || spec_.time_left == absl::InfiniteDuration())) {
      checker_.Violate(absl::StrCat("an idle server refuses a call: ", status.message()));
    }
  }

  void CheckAnswer(const grpc::ByteBuffer& answer) {
    v1::EmbedResponse response;
    if (!ParseMessage(answer, 1 << 30, response).ok()) checker_.Violate("an answer cannot be read");
    if (response.results_size() != static_cast<int>(call_->texts.size()))
      return checker_.Violate("an answer lacks results");
    for (int i = 0; i < response.results_size(); ++i) {
      CheckResult(*call_->texts[static_cast<size_t>(i)], response.results(i), spec_.window_vectors,
                  server_.options().faulty(), checker_);
    }
    const absl::Duration took = server_.loop().Now() - call_->began;
    const auto differ = [](absl::Duration one, absl::Duration other) {
      return absl::AbsDuration(one - other) > absl::Microseconds(1);  // The answer is rounded to whole nanoseconds.
    };
    if (differ(ToDuration(response.timing().total()), took))
      checker_.Violate("a call's total time is not what it took");
    if (!server_.options().exact()) return;
    const absl::Duration inference = ToDuration(response.timing().inference());
    if (differ(inference, call_->inference)) checker_.Violate("a call's inference time is not that of its batches");
    const absl::Duration rest = ToDuration(response.timing().queue()) + ToDuration(response.timing().tokenization());
    if (rest > took) checker_.Violate("a call waited for longer than it took");
    const bool one_batch = call_->texts.size() == 1 && call_->texts[0]->sequences.size() == 1;
    if (one_batch && differ(rest + inference, took)) checker_.Violate("a call's times do not add up");
  }

  void CheckTokens(const grpc::ByteBuffer& answer) {
    v1::TokenizeResponse response;
    if (!ParseMessage(answer, 1 << 30, response).ok()) checker_.Violate("an answer cannot be read");
    for (int i = 0; i < response.results_size(); ++i) {
      const auto words = static_cast<int>(std::ranges::count(call_->texts[static_cast<size_t>(i)]->text, ' '));
      if (response.results(i).tokens_size() != (words == 0 ? 0 : words - static_cast<int>(spec_.blanks)) + 2) {
        checker_.Violate("an answer does not have the tokens of its text");
      }
    }
  }

  // Takes the answer at once or after a random delay. Until then the server holds it.
  void TakeAnswer(const UnaryHost::Outcome& outcome) {
    const auto bytes = static_cast<int64_t>(outcome.status.ok() ? outcome.answer.Length() : 0);
    server_.CountHeld(0, bytes);
    const auto take = [this, bytes, self = shared_from_this()] {
      server_.CountHeld(-1, -bytes);
      host_ = nullptr;
    };
    // The server holds nothing for a call that it refused for lack of memory.
    if (absl::IsResourceExhausted(outcome.status) || server_.random().OneIn(3)) return take();
    server_.loop().After(server_.random().UpTo(absl::Milliseconds(300)), take);
  }

  SimulatedServer& server_;
  Checker& checker_;
  const UnarySpec spec_;
  const std::shared_ptr<Call> call_ = std::make_shared<Call>();
  grpc::ByteBuffer request_;
  std::unique_ptr<UnaryHost> host_;
  bool ended_ = false, cancelled_ = false;
};

class StreamCaller : public std::enable_shared_from_this<StreamCaller>, private StreamTransport {
 public:
  StreamCaller(SimulatedServer& server, StreamSpec spec)
      : server_(server), checker_(server.checker()), spec_(std::move(spec)) {
    messages_.resize(spec_.texts.size());
    for (size_t i = 0; i < messages_.size(); ++i) {
      const bool in_parts = spec_.in_parts && (i + 1 == messages_.size() || server_.random().OneIn(3));
      AddMessage(i, in_parts);
    }
    if (spec_.unfinished) sends_.pop_back();
  }

  void Start() {
    server_.CountOpen(+1, 0);
    EmbedStreamSetup stream = MakeEmbedStream(server_.longembed());
    if (spec_.tei) stream = {.method = TeiEmbedMethod("tei.EmbedStream", server_.tei()), .options = {}};
    stream.options.max_messages = spec_.max_messages;
    stream.options.max_bytes = spec_.max_bytes;
    host_ = StreamHost::Make(stream.method, stream.options, ArrivalOf(server_, spec_.client, absl::InfiniteDuration()),
                             server_.host(), *this);
    keep_ = shared_from_this();
    server_.before_call();
    host_->Begin();
    if (!refused_) server_.AddStream(host_);
    if (finished_) return;
    if (spec_.go_away_after != absl::InfiniteDuration()) {
      server_.loop().After(spec_.go_away_after, [this, self = keep_] { GoAway(); });
    }
  }

 private:
  struct Message {
    const std::shared_ptr<Call> call = std::make_shared<Call>();
    bool begun = false;     // Its first part was sent.
    bool sent = false;      // It was sent completely.
    bool too_late = false;  // It was sent after the server had begun to drain.
    bool answered = false;
  };
  struct Send {
    size_t message = 0;
    bool is_last = true;  // Whether this is the message's last part.
    grpc::ByteBuffer bytes;
  };

  void AddMessage(size_t index, bool in_parts) {
    const Shape shape = !spec_.tei ? Shape::kWindows : server_.random().OneIn(6) ? Shape::kWhole : Shape::kCut;
    Call& call = *messages_[index].call;
    call.client = spec_.client;
    call.model = spec_.model;
    call.interactive = !spec_.bulk;
    call.streamed = true;
    call.texts.push_back(checker_.MakeText(spec_.texts[index], shape));
    const std::string& text = call.texts[0]->text;
    const size_t half = in_parts ? text.size() / 2 : 0;
    if (in_parts) sends_.push_back({index, /*is_last=*/false, Request(index, text.substr(0, half), /*more=*/true)});
    sends_.push_back({index, /*is_last=*/true,
                      spec_.tei ? TeiRequest(text, shape == Shape::kCut) : Request(index, text.substr(half), false)});
    call.request_bytes = static_cast<int64_t>(sends_.back().bytes.Length());
  }

  // Checks that the server reads from a stream as soon as it has room.
  void CheckReads() {
    const bool may_end = server_.draining() || server_.options().max_stream_age != absl::InfiniteDuration();
    if (finished_ || gone_ || writing_ || reading_ || may_end || sent_all_ || !server_.options().exact()) return;
    const auto left = static_cast<size_t>(
        std::ranges::count_if(messages_, [](const Message& message) { return message.sent && !message.answered; }));
    if (left < spec_.max_messages && spec_.max_bytes >= 1 << 20)
      checker_.Violate("a stream that has room is not read from");
  }

  absl::Duration Pause(absl::Duration usual, absl::Duration now_and_then) {
    if (spec_.unpaced) return absl::ZeroDuration();
    return server_.random().UpTo(server_.random().OneIn(10) ? now_and_then : usual);
  }

  // Sends the next message, or ends the client's side of the stream.
  void Read() override {
    if (finished_) checker_.Violate("a stream was read from after its end");
    CheckFlow();
    reading_ = true;
    server_.loop().After(Pause(absl::Milliseconds(20), absl::Seconds(2)), [this, self = keep_] {
      reading_ = false;
      if (over_) return;
      if (gone_ || sent_ == sends_.size()) {
        sent_all_ = sent_ == sends_.size();
        return host_->OnRead(false, {});
      }
      host_->OnRead(true, Next());
      server_.loop().After(absl::ZeroDuration(), [this, self] { CheckReads(); });
    });
  }

  // Checks flow control: the server reads from a stream only while the work in progress is below the stream's limits,
  // or while there is none. One answer may be about to be written.
  void CheckFlow() {
    size_t messages = 0;
    int64_t bytes = 0, largest = 0;
    for (const Message& message : messages_) {
      if (!message.sent || message.answered) continue;
      ++messages;
      bytes += message.call->request_bytes;
      largest = std::max(largest, message.call->request_bytes);
    }
    if (messages > spec_.max_messages || (messages > 1 && bytes - largest >= spec_.max_bytes)) {
      checker_.Violate("a stream was read from beyond its bounds");
    }
  }

  const grpc::ByteBuffer& Next() {
    const Send& send = sends_[sent_++];
    Message& message = messages_[send.message];
    message.begun = true;
    if (!send.is_last) return send.bytes;
    message.sent = true;
    message.too_late = server_.draining();
    if (!message.answered) checker_.Begin(message.call);
    return send.bytes;
  }

  grpc::ByteBuffer TeiRequest(const std::string& text, bool truncate) const {
    tei::v1::EmbedRequest request;
    request.set_inputs(text);
    request.set_normalize(false);
    request.set_truncate(truncate);
    return SerializeMessage(request);
  }

  grpc::ByteBuffer Request(size_t index, const std::string& text, bool more) const {
    v1::EmbedStreamRequest request;
    if (sends_.empty()) SetOptions(spec_.model, spec_.bulk, *request.mutable_options());
    request.set_id(absl::StrCat(index));
    request.set_more_parts(more);
    request.mutable_input()->set_text(text);
    return SerializeMessage(request);
  }

  void Write(grpc::ByteBuffer answer) override {
    if (finished_ || writing_) checker_.Violate("a stream was written to out of turn");
    writing_ = true;
    const auto bytes = static_cast<int64_t>(answer.Length());
    server_.CountHeld(0, bytes);
    server_.at_answer(true);
    spec_.tei ? TakeTei(answer) : Take(answer);
    server_.at_answer(false);
    server_.loop().After(Pause(absl::Milliseconds(5), absl::Seconds(3)), [this, bytes, self = keep_] {
      writing_ = false;
      server_.CountHeld(0, -bytes);
      if (!over_) host_->OnWritten(!gone_);
      CheckReads();
      Leave();
    });
  }

  void Take(const grpc::ByteBuffer& answer) {
    v1::EmbedStreamResponse response;
    if (!ParseMessage(answer, 1 << 30, response).ok()) checker_.Violate("an answer cannot be read");
    Message& message = messages_.at(static_cast<size_t>(std::stoi(response.id())));
    if (!CheckAnswered(message)) return;
    CheckResult(*message.call->texts[0], response.result(), /*window_vectors=*/false, !server_.options().exact(),
                checker_);
  }

  // Takes an answer. TEI answers must have the order of their messages.
  void TakeTei(const grpc::ByteBuffer& answer) {
    tei::v1::EmbedResponse response;
    if (!ParseMessage(answer, 1 << 30, response).ok()) checker_.Violate("an answer cannot be read");
    const auto message = std::ranges::find_if(messages_, [](const Message& message) { return !message.answered; });
    if (message == messages_.end()) return checker_.Violate("a message was answered twice");
    if (CheckAnswered(*message)) CheckVector(*message->call->texts[0], response.embeddings(), checker_);
  }

  bool CheckAnswered(Message& message) {
    if (!message.begun) checker_.Violate("a message was answered before it was sent");
    if (message.too_late) checker_.Violate("a message that was sent while the server drained was answered");
    if (std::exchange(message.answered, true)) checker_.Violate("a message was answered twice");
    checker_.End(*message.call);
    return message.begun;
  }

  void Finish(const absl::Status& status) override {
    if (std::exchange(finished_, true)) checker_.Violate("a stream was finished twice");
    server_.CountOpen(-1, 0);
    if (writing_) checker_.Violate("a stream was finished during a write");
    CheckRefusal(status, checker_);
    refused_ = absl::IsResourceExhausted(status) && sent_ == 0;
    if (!gone_) CheckStatus(status);
    if (!gone_ && !server_.options().faulty()) CheckAnswers(status);
    EndAll();
    server_.loop().After(absl::Milliseconds(1), [this, self = keep_] { Leave(); });
  }

  void CheckStatus(const absl::Status& status) {
    const bool all = std::ranges::all_of(messages_, [](const Message& message) { return message.answered; });
    if (status.ok() && (!all || !sent_all_)) checker_.Violate("a stream ended with OK but without all answers");
    const std::string reason = ErrorReason(status);
    if (reason == "DRAINING" && !server_.draining()) checker_.Violate("a stream was drained while the server serves");
    if (absl::IsCancelled(status) && !server_.options().faulty())
      checker_.Violate("a stream was cancelled without a request");
    if (reason == "PARTS_INTERRUPTED" && !spec_.unfinished) checker_.Violate("a text in parts was called unfinished");
    const bool in_time = server_.loop().Now() - std::max(server_.drain_began(), began_) < absl::Minutes(2);
    if (server_.draining() && !server_.options().faulty() && !in_time) checker_.Violate("a drain does not end in time");
  }

  // Checks that all messages read before the end of a stream were answered first, whatever ended the stream.
  void CheckAnswers(const absl::Status& status) {
    std::vector<const Message*> left;
    for (const Message& message : messages_) {
      if (message.sent && !message.answered && !message.too_late) left.push_back(&message);
    }
    if (left.empty()) return;
    const bool is_of_stream = absl::IsUnavailable(status) || status.ok();
    if (is_of_stream) return checker_.Violate(absl::StrCat("a stream ended before its answers: ", status.ToString()));
    const bool has_vector = !left.front()->call->texts[0]->sequences.empty();
    if (absl::IsInvalidArgument(status) && has_vector) checker_.Violate("a stream was ended by a good message");
    if (!spec_.tei && left.size() > 1) checker_.Violate("a stream that ended with an error lost answers");
  }

  void GoAway() {
    if (finished_) return;
    gone_ = true;
    host_->OnCancelled();
    EndAll();
  }

  void EndAll() {
    for (const Message& message : messages_) checker_.End(*message.call);
  }

  // Ends the caller, like gRPC's OnDone.
  void Leave() {
    if (!finished_ || writing_ || over_) return;
    over_ = true;
    host_->OnFinished();
    host_ = nullptr;
    keep_ = nullptr;
  }

  SimulatedServer& server_;
  Checker& checker_;
  const StreamSpec spec_;
  const absl::Time began_ = server_.loop().Now();
  std::vector<Message> messages_;
  std::vector<Send> sends_;
  std::shared_ptr<StreamHost> host_;
  std::shared_ptr<StreamCaller> keep_;  // Keeps the caller alive as long as the transport uses it.
  size_t sent_ = 0;
  bool refused_ = false;  // The server refused the stream and holds nothing for it.
  bool sent_all_ = false;
  bool gone_ = false, reading_ = false, writing_ = false, finished_ = false, over_ = false;
};

}  // namespace

void CallUnary(SimulatedServer& server, UnarySpec spec) {
  std::make_shared<UnaryCaller>(server, std::move(spec))->Start();
}

void CallStream(SimulatedServer& server, StreamSpec spec) {
  std::make_shared<StreamCaller>(server, std::move(spec))->Start();
}

}  // namespace longembed
