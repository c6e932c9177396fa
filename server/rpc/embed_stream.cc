#include "server/rpc/embed_stream.h"

#include <google/protobuf/arena.h>

#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "longembed/v1/embedding.pb.h"
#include "model/errors/errors.h"
#include "server/core/embed_call.h"
#include "server/errors/errors.h"
#include "server/errors/within_memory.h"
#include "server/rpc/converters.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/message_stream.h"
#include "server/rpc/wire.h"

namespace longembed {
namespace {

// Messages of one stream that are in work at a time: enough for some batches of short texts.
constexpr size_t kMaxMessages = 256;

// What the messages of a stream share. Changed by Start of its operations only, which gRPC runs one after the other.
struct Corpus {
  bool begun = false;
  ServedModel* model = nullptr;
  ResolvedOptions options;  // Set by the first message, then read by all operations.

  // A text whose last part has not come.
  bool in_parts = false;
  std::string id;
  std::string text;
  std::vector<std::unique_ptr<PendingCall>> pending;  // Of the parts so far.
};

// Whether an error is the input's own, and the stream goes on.
bool IsOfInput(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kDeadlineExceeded:
      return false;
    case absl::StatusCode::kResourceExhausted:
      // What the encoder has not the memory for, and what else there is not the memory for.
      return !RetryDelay(status).has_value() || IsOutOfMemory(status);
    default:
      return true;
  }
}

class EmbedMessage final : public Operation {
 public:
  EmbedMessage(const ServiceContext& service, const CallRecord& record, std::shared_ptr<Corpus> corpus)
      : service_(service), record_(record), corpus_(std::move(corpus)), arrival_(service.clock.Now()) {}

  void Start(const grpc::ByteBuffer& bytes, absl::Time deadline, Done done) override {
    done_ = std::move(done);
    if (const absl::Status status = Receive(bytes); !status.ok()) return End(status);
    if (!complete_) return End(absl::OkStatus());
    absl::StatusOr<Input> input =
        ConvertInput(request_->input(), "input", corpus_->options.input.spans, service_.limits);
    if (!input.ok()) return EndInput(input.status());
    EmbedOrder order = ToOrder(corpus_->options, {*std::move(input)}, service_.limits);
    order.deadline = deadline;
    order.wait_for_room = true;
    record_.SignOrder(order);
    call_ = EmbedCall::Start(*corpus_->model, service_.pool, service_.clock, std::move(order),
                             [this](absl::StatusOr<EmbedAnswer> answer) { Answer(std::move(answer)); });
  }

  void Cancel() override {
    if (call_ != nullptr) call_->Cancel();
  }

  bool has_response() const override { return complete_; }
  int64_t expected_answer_bytes() const override {
    constexpr int64_t kBytesPerComponent = 4;
    return complete_ ? ExpectedVectors() * corpus_->options.vector.dimensions * kBytesPerComponent : 0;
  }
  const google::protobuf::Message& response() const override { return *response_; }
  std::string model() const override { return model_name_; }

 private:
  // The message into request_, its text with the parts that came before. Errors end the stream.
  absl::Status Receive(const grpc::ByteBuffer& bytes) {
    if (const absl::Status status = ParseMessage(bytes, service_.limits.max_request_bytes, *request_); !status.ok()) {
      return status;
    }
    if (corpus_->begun && request_->has_options()) return OptionsOnLaterMessage();
    if (!corpus_->begun) {
      if (const absl::Status status = ResolveStreamOptions(); !status.ok()) return status;
    }
    model_name_ = corpus_->model->name();
    response_->set_id(request_->id());
    if (const absl::Status status = AddPart(static_cast<int64_t>(bytes.Length())); !status.ok()) return status;
    complete_ = !request_->more_parts();
    return absl::OkStatus();
  }

  absl::Status ResolveStreamOptions() {
    const absl::StatusOr<ServedModel*> model = service_.models.Find(request_->options().model(), "options.model");
    if (!model.ok()) return model.status();
    absl::StatusOr<ResolvedOptions> options =
        ResolveOptions(request_->options(), **model, service_.profiles, service_.limits);
    if (!options.ok()) return options.status();
    corpus_->model = *model;
    corpus_->options = *std::move(options);
    corpus_->begun = true;
    return absl::OkStatus();
  }

  // Of outputs with several; about.
  int64_t ExpectedVectors() const {
    constexpr int64_t kBytesPerToken = 4, kTokensPerSentence = 16;
    const ResolvedOptions& options = corpus_->options;
    const v1::Input& input = request_->input();
    const int64_t tokens =
        1 + static_cast<int64_t>(input.text().size()) / kBytesPerToken + input.token_ids().ids_size();
    if (const auto* every = std::get_if<EveryTokens>(&options.input.spans)) return 1 + tokens / every->tokens;
    if (std::holds_alternative<SentenceSpans>(options.input.spans)) return 1 + tokens / kTokensPerSentence;
    if (std::holds_alternative<GivenRanges>(options.input.spans)) return input.ranges_size();
    const auto& windows = options.input.plan.extension.windows;
    if (!options.vector.vector_per_window || !windows.has_value()) return 0;
    return 1 + tokens / windows->tokens.value_or(corpus_->model->model().manifest.trained_window);
  }

  absl::Status AddPart(int64_t bytes) {
    Corpus& corpus = *corpus_;
    if (corpus.in_parts && request_->id() != corpus.id) return PartsInterrupted(corpus.id, request_->id());
    if (!corpus.in_parts && !request_->more_parts()) return absl::OkStatus();
    if (!request_->input().has_text()) return PartsNeedText();
    absl::StatusOr<std::unique_ptr<PendingCall>> pending = record_.Hold(bytes);
    if (!pending.ok()) return pending.status();
    corpus.pending.push_back(*std::move(pending));
    corpus.in_parts = request_->more_parts();
    corpus.id = request_->id();
    corpus.text += request_->input().text();
    if (const int64_t limit = MaxStreamedTextBytes(service_.limits); static_cast<int64_t>(corpus.text.size()) > limit) {
      return StreamedTextTooLarge(static_cast<int64_t>(corpus.text.size()), limit);
    }
    if (corpus.in_parts) return absl::OkStatus();
    *request_->mutable_input()->mutable_text() = std::exchange(corpus.text, {});
    pending_ = std::exchange(corpus.pending, {});
    return absl::OkStatus();
  }

  void Answer(absl::StatusOr<EmbedAnswer> answer) {
    if (!answer.ok()) return EndInput(answer.status());
    const ResolvedOptions& options = corpus_->options;
    const absl::Status filled = WithinMemory([&] {
      FillResult(answer->results.front(), options, *response_->mutable_result());
      return absl::OkStatus();
    });
    if (!filled.ok()) {
      response_->clear_result();
      return EndInput(filled);
    }
    response_->set_model(model_name_);
    response_->set_prompt(options.input.prompt);
    response_->set_recipe(options.recipe);
    FillTiming(*answer, service_.clock.Now() - arrival_, *response_->mutable_timing());
    End(absl::OkStatus());
  }

  void EndInput(const absl::Status& status) {
    if (!IsOfInput(status)) return End(status);
    *response_->mutable_result()->mutable_error() = ToRpcStatus(RenameField(status, "inputs[0]", "input"));
    End(absl::OkStatus());
  }

  // The last thing that an operation does: `done` may be what kept it alive.
  void End(const absl::Status& status) {
    Done done = std::move(done_);
    std::move(done)(status);
  }

  const ServiceContext& service_;
  const CallRecord& record_;
  const std::shared_ptr<Corpus> corpus_;
  const absl::Time arrival_;
  google::protobuf::Arena arena_;
  v1::EmbedStreamRequest* const request_ = google::protobuf::Arena::CreateMessage<v1::EmbedStreamRequest>(&arena_);
  v1::EmbedStreamResponse* const response_ = google::protobuf::Arena::CreateMessage<v1::EmbedStreamResponse>(&arena_);
  bool complete_ = false;  // The text is whole: there will be an answer.
  std::string model_name_;
  std::vector<std::unique_ptr<PendingCall>> pending_;
  std::shared_ptr<EmbedCall> call_;
  Done done_;
};

}  // namespace

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* StartEmbedStream(const ServiceContext& service,
                                                                              grpc::CallbackServerContext* context) {
  const auto corpus = std::make_shared<Corpus>();
  return new MessageStream(  // Deletes itself.
      "EmbedStream", service, context,
      [&service, corpus](const CallRecord& record) { return std::make_unique<EmbedMessage>(service, record, corpus); },
      {.in_order = false,
       .max_messages = kMaxMessages,
       .max_bytes = service.limits.max_request_bytes,
       .max_age = service.max_stream_age,
       .check_end = [corpus] { return corpus->in_parts ? PartsUnfinished(corpus->id) : absl::OkStatus(); }});
}

}  // namespace longembed
