#include "server/api/longembed/embed_stream.h"

#include <memory>
#include <string>
#include <utility>
#include <variant>

#include "longembed/v1/embedding.pb.h"
#include "model/errors/errors.h"
#include "server/api/longembed/answer_converter.h"
#include "server/api/longembed/request_converter.h"
#include "server/core/embed_call.h"
#include "server/errors/errors.h"
#include "server/errors/rpc_status.h"
#include "server/errors/within_memory.h"
#include "system/return_if_error.h"

namespace longembed {
namespace {

// Messages of one stream that are processed at a time: enough for a few batches of short texts.
constexpr size_t kMaxMessages = 256;

// State that the messages of a stream share. Only Start and Reject of its operations change it; a host runs those one
// after the other.
struct StreamState {
  ServedModel* model = nullptr;  // Null before the first message.
  ResolvedOptions options;       // Set by the first message, then read by all operations.

  // A text whose last part has not arrived.
  bool in_parts = false;
  bool failed = false;  // The text's error has been answered; its other parts are skipped.
  std::string id;
  std::string text;
  std::unique_ptr<Charge> memory;  // The memory that the text holds.
};

// Returns whether an error concerns one input only, so that the stream continues.
bool IsOfInput(const absl::Status& status) {
  return !absl::IsUnavailable(status) && !absl::IsCancelled(status) && !absl::IsDeadlineExceeded(status);
}

class EmbedMessage final : public TypedOperation<v1::EmbedStreamRequest, v1::EmbedStreamResponse> {
 public:
  EmbedMessage(const LongembedContext& context, std::shared_ptr<StreamState> stream, const CallContext& call,
               Request& request, Response& response)
      : TypedOperation(call, request, response), context_(context), state_(std::move(stream)), message_(request) {}

  void Start(Done done) override {
    done_ = std::move(done);
    response_.set_id(request_.id());
    if (const absl::Status status = TakeOptions(); !status.ok()) return End(status);
    if (const absl::Status status = CheckPart(); !status.ok()) return End(status);
    const absl::Status status = WithinMemory([this] { return AddPart(); });
    if (!status.ok()) FailParts();
    if (!status.ok() || !complete_) return EndInput(status);
    absl::StatusOr<Input> input = ConvertInput(request_.input(), "input", state_->options.input.spans, context_.limits);
    if (!input.ok()) return EndInput(input.status());
    expected_bytes_ = ExpectedVectors() * state_->options.vector.dimensions * static_cast<int64_t>(sizeof(float));
    embed_ = EmbedCall::Start(*state_->model, context_.pool, context_.clock,
                              ToParams(state_->options, {std::move(input)}, context_.limits, call_),
                              [this](absl::StatusOr<EmbedAnswer> answer) { Answer(std::move(answer)); });
  }

  // Answers a message that cannot be read with its error, under the message's id if that can be read. An error of the
  // first message ends the stream instead, because it has the options of all messages.
  void Reject(const absl::Status& status, Done done) override {
    done_ = std::move(done);
    if (state_->model == nullptr || request_.id().empty()) return End(status);
    // Otherwise the parts so far would be dropped, and the next ones would be taken for the whole text.
    if (const absl::Status order = CheckOrder(); !order.ok()) return End(order);
    response_.set_id(request_.id());
    const bool whole = !state_->in_parts && !request_.more_parts();
    const bool passed_over = IsPassedOver();
    if (!whole) FailParts();
    EndInput(passed_over ? absl::OkStatus() : status);
  }

  void Cancel() override {
    if (embed_ != nullptr) embed_->Cancel();
  }

  bool has_response() const override { return complete_; }
  int64_t expected_answer_bytes() const override { return expected_bytes_; }
  std::string model() const override { return model_name_; }

 private:
  absl::Status TakeOptions() {
    if (state_->model != nullptr && request_.has_options()) return OptionsOnLaterMessage();
    if (state_->model == nullptr) {
      const absl::StatusOr<ModelChoice> choice =
          ResolveModel(context_.models, context_.profiles, request_.options().model(), "options.model");
      if (!choice.ok()) return choice.status();
      absl::StatusOr<ResolvedOptions> options =
          ResolveOptions(request_.options(), *choice, context_.profiles, context_.limits);
      if (!options.ok()) return options.status();
      state_->options = *std::move(options);
      state_->model = choice->model;
    }
    model_name_ = state_->model->name();
    return absl::OkStatus();
  }

  // Estimates the number of vectors, for outputs with several; else 0.
  int64_t ExpectedVectors() const {
    constexpr int64_t kBytesPerToken = 4, kTokensPerSentence = 16;
    const ResolvedOptions& options = state_->options;
    const v1::Input& input = request_.input();
    const int64_t tokens =
        1 + static_cast<int64_t>(input.text().size()) / kBytesPerToken + input.token_ids().ids_size();
    if (options.input.plan.token_vectors != TokenVectors::kNone) return tokens;
    if (const auto* every = std::get_if<EveryTokens>(&options.input.spans)) return 1 + tokens / every->tokens;
    if (std::holds_alternative<SentenceSpans>(options.input.spans)) return 1 + tokens / kTokensPerSentence;
    if (std::holds_alternative<GivenRanges>(options.input.spans)) return input.ranges_size();
    const auto& windows = options.input.plan.extension.windows;
    if (!options.vector.vector_per_window || !windows.has_value()) return 0;
    return 1 + tokens / windows->tokens.value_or(state_->model->model().manifest.trained_window);
  }

  // Returns whether the message is a part of a text whose error has been answered.
  bool IsPassedOver() const { return state_->in_parts && state_->failed && request_.id() == state_->id; }

  // Checks that no other text begins before the last part of one.
  absl::Status CheckOrder() const {
    const bool interrupts = state_->in_parts && request_.id() != state_->id;
    return interrupts ? PartsInterrupted(state_->id, request_.id()) : absl::OkStatus();
  }

  // Checks the id and the order of parts. Its errors end the stream.
  absl::Status CheckPart() const {
    if (request_.id().empty()) return MissingId();
    if (const absl::Status order = CheckOrder(); !order.ok()) return order;
    const bool part = state_->in_parts || request_.more_parts();
    return part && !request_.input().has_text() ? PartsNeedText() : absl::OkStatus();
  }

  // Sets complete_ when the text is whole. Errors concern the text; the caller must then drop its parts (FailParts).
  absl::Status AddPart() {
    StreamState& stream = *state_;
    complete_ = !stream.in_parts && !request_.more_parts();
    if (complete_) return absl::OkStatus();
    const bool passed_over = IsPassedOver();
    stream.in_parts = request_.more_parts();
    stream.failed = passed_over && stream.in_parts;
    stream.id = request_.id();
    if (passed_over) return absl::OkStatus();
    if (stream.in_parts && !request_.input().ranges().empty()) {
      return Misplaced("input.ranges", "the last part of the text, without more_parts");
    }
    absl::Status status = AddText(request_.input().text());
    if (status.ok() && !stream.in_parts) status = TakeText();
    return status;
  }

  absl::Status AddText(const std::string& part) {
    StreamState& stream = *state_;
    const auto bytes = static_cast<int64_t>(stream.text.size() + part.size());
    if (const int64_t limit = MaxStreamedTextBytes(context_.limits); bytes > limit) {
      return StreamedTextTooLarge(bytes, limit);
    }
    if (stream.memory == nullptr) stream.memory = call_.memory.ForSameClient();
    RETURN_IF_ERROR(stream.memory->Hold(Memory::kRequests, bytes));
    stream.text += part;
    stream.memory->Correct(Memory::kRequests, static_cast<int64_t>(stream.text.capacity()));
    return absl::OkStatus();
  }

  // Moves the text into this message.
  absl::Status TakeText() {
    state_->memory = nullptr;
    const auto bytes = static_cast<int64_t>(state_->text.size());
    RETURN_IF_ERROR(call_.memory.HoldMore(Memory::kRequests, bytes));
    *message_.mutable_input()->mutable_text() = std::exchange(state_->text, {});
    complete_ = true;
    return absl::OkStatus();
  }

  // Drops the parts gathered so far and skips the rest of the text.
  void FailParts() {
    state_->in_parts = state_->failed = request_.more_parts();
    state_->id = request_.id();
    std::string().swap(state_->text);
    state_->memory = nullptr;
  }

  void Answer(absl::StatusOr<EmbedAnswer> answer) {
    if (!answer.ok()) return EndInput(answer.status());
    const ResolvedOptions& options = state_->options;
    const absl::Status filled = WithinMemory([&] {
      FillResult(answer->results.front(), options, *response_.mutable_result());
      return absl::OkStatus();
    });
    if (!filled.ok()) {
      response_.clear_result();
      return EndInput(filled);
    }
    response_.set_model(model_name_);
    response_.set_prompt(options.input.prompt);
    response_.set_recipe(options.recipe);
    FillTiming(*answer, context_.clock.Now() - call_.arrival, *response_.mutable_timing());
    EndWithAnswer();
  }

  // Ends the operation with its response. One that is too large fails alone here; later it would end the stream.
  void EndWithAnswer() {
    const auto bytes = static_cast<int64_t>(response_.ByteSizeLong());
    if (bytes <= context_.limits.max_response_bytes) return End(absl::OkStatus());
    response_.Clear();
    response_.set_id(request_.id());
    EndInput(AnswerTooLarge("input", bytes, context_.limits.max_response_bytes));
  }

  // Ends the operation with the input's error as its answer. If `status` is OK, this was a part, which has no answer.
  void EndInput(const absl::Status& status) {
    if (status.ok() || !IsOfInput(status)) return End(status);
    complete_ = true;
    if (call_.trace != nullptr) call_.trace->error = status;
    // Errors of the whole call name "inputs".
    const absl::Status renamed = RenameField(RenameField(status, "inputs[0]", "input"), "inputs", "input");
    *response_.mutable_result()->mutable_error() = ToRpcStatus(renamed);
    End(absl::OkStatus());
  }

  const LongembedContext& context_;
  const std::shared_ptr<StreamState> state_;
  Request& message_;
  bool complete_ = false;  // Whether the message has an answer.
  int64_t expected_bytes_ = 0;
  std::string model_name_;
  std::shared_ptr<EmbedCall> embed_;
};

}  // namespace

EmbedStreamSetup MakeEmbedStream(const LongembedContext& context) {
  const auto state = std::make_shared<StreamState>();
  return {
      .method = {.name = "EmbedStream",
                 .request = &v1::EmbedStreamRequest::default_instance(),
                 .response = &v1::EmbedStreamResponse::default_instance(),
                 .make = [&context, state](const CallContext& call, google::protobuf::Message& request,
                                           google::protobuf::Message& response) -> std::unique_ptr<Operation> {
                   return std::make_unique<EmbedMessage>(context, state, call,
                                                         static_cast<v1::EmbedStreamRequest&>(request),
                                                         static_cast<v1::EmbedStreamResponse&>(response));
                 }},
      .options = {.in_order = false,
                  .max_messages = kMaxMessages,
                  .max_bytes = context.limits.max_request_bytes,
                  .check_end = [state] { return state->in_parts ? PartsUnfinished(state->id) : absl::OkStatus(); }}};
}

}  // namespace longembed
