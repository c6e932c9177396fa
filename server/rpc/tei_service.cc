#include "server/rpc/tei_service.h"

#include <google/protobuf/arena.h>
#include <grpcpp/server_context.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"
#include "model/text/utf8.h"
#include "server/core/embed_call.h"
#include "server/errors/errors.h"
#include "server/errors/within_memory.h"
#include "server/rpc/converters.h"
#include "server/rpc/message_stream.h"
#include "server/rpc/unary_call.h"
#include "server/rpc/wire.h"

namespace longembed {
namespace {

using tei::v1::DecodeRequest;
using tei::v1::DecodeResponse;
using tei::v1::EmbedAllRequest;
using tei::v1::EmbedAllResponse;
using tei::v1::EmbedRequest;
using tei::v1::EmbedResponse;
using tei::v1::EncodeRequest;
using tei::v1::EncodeResponse;

// Messages of one stream that are in work at a time: some batches' worth.
constexpr size_t kMaxParallelOfStream = 64;

uint32_t CodePoints(const std::string& text) {
  return static_cast<uint32_t>(
      std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

template <typename Request>
absl::StatusOr<std::string> PromptOf(const TeiContext& context, const Request& request) {
  if (!request.has_prompt_name()) return context.default_prompt;
  const auto& prompts = context.model.model().manifest.prompts;
  const auto found = prompts.find(request.prompt_name());
  if (found != prompts.end()) return found->second;
  std::vector<std::string> known;
  for (const auto& [name, prompt] : prompts) known.push_back(name);
  return UnknownPrompt("prompt_name", request.prompt_name(), known);
}

absl::StatusOr<Truncate> TruncateOf(bool truncate, int direction) {
  if (direction != tei::v1::TRUNCATION_DIRECTION_RIGHT && direction != tei::v1::TRUNCATION_DIRECTION_LEFT) {
    return UnknownEnumValue("truncation_direction", direction);
  }
  if (!truncate) return Truncate::kNone;
  return direction == tei::v1::TRUNCATION_DIRECTION_RIGHT ? Truncate::kEnd : Truncate::kStart;
}

// --------------------------------------------------------------------------------------------------------- operations

template <typename Request, typename Response>
class TeiOperation : public Operation {
 public:
  TeiOperation(const TeiContext& context, const CallRecord& record) : context_(context), record_(record) {}

  void Start(const grpc::ByteBuffer& bytes, absl::Time deadline, Done done) override {
    done_ = std::move(done);
    const absl::Status status = ParseMessage(bytes, context_.service.limits.max_request_bytes, *request_);
    status.ok() ? Begin(deadline) : End(status);
  }
  const google::protobuf::Message& response() const override { return *response_; }
  std::string model() const override { return context_.model.name(); }

 protected:
  virtual void Begin(absl::Time deadline) = 0;
  // The last thing that an operation does: `done` may be what kept it alive.
  void End(const absl::Status& status) {
    Done done = std::move(done_);
    std::move(done)(status);
  }

  const TeiContext& context_;
  const CallRecord& record_;

 private:
  google::protobuf::Arena arena_;
  Done done_;

 protected:
  Request* const request_ = google::protobuf::Arena::CreateMessage<Request>(&arena_);
  Response* const response_ = google::protobuf::Arena::CreateMessage<Response>(&arena_);
};

// What Embed and EmbedAll share: one text, encoded by the scheduler.
template <typename Request, typename Response>
class TeiEncode : public TeiOperation<Request, Response> {
 public:
  // `wait_for_room`: see EmbedOrder.
  TeiEncode(const TeiContext& context, const CallRecord& record, bool wait_for_room)
      : TeiOperation<Request, Response>(context, record),
        arrival_(context.service.clock.Now()),
        wait_for_room_(wait_for_room) {}

  void Cancel() override {
    if (call_ != nullptr) call_->Cancel();
  }

 protected:
  virtual absl::Status FillOrder(EmbedOrder& order) = 0;
  virtual void FillResponse(const EmbeddedInput& input) = 0;

 private:
  void Begin(absl::Time deadline) override {
    absl::StatusOr<EmbedOrder> order = MakeOrder(deadline);
    if (!order.ok()) return this->End(order.status());
    const ServiceContext& service = this->context_.service;
    call_ = EmbedCall::Start(this->context_.model, service.pool, service.clock, *std::move(order),
                             [this](absl::StatusOr<EmbedAnswer> answer) { Answer(std::move(answer)); });
  }

  // TEI tokenises prompt and text as one, and truncates them so.
  absl::StatusOr<EmbedOrder> MakeOrder(absl::Time deadline) {
    const Request& request = *this->request_;
    if (request.inputs().empty()) return AtField(EmptyInput(), "inputs");
    absl::StatusOr<std::string> prompt = PromptOf(this->context_, request);
    if (!prompt.ok()) return prompt.status();
    text_ = *std::move(prompt) + request.inputs();
    const absl::StatusOr<Truncate> truncate = TruncateOf(request.truncate(), request.truncation_direction());
    if (!truncate.ok()) return truncate.status();
    EmbedOrder order{.inputs = {std::string_view(text_)},
                     .input_options = {.plan = {.truncate = *truncate,
                                                .limits = ToPlanLimits(this->context_.service.limits),
                                                .allow_empty = true}},
                     .vector_options = {.dimensions = this->context_.model.model().manifest.hidden_size},
                     .deadline = deadline,
                     .max_response_bytes = this->context_.service.limits.max_response_bytes,
                     .wait_for_room = wait_for_room_};
    this->record_.SignOrder(order);
    if (const absl::Status status = FillOrder(order); !status.ok()) return status;
    return order;
  }

  void Answer(absl::StatusOr<EmbedAnswer> answer) {
    if (!answer.ok()) return this->End(answer.status());
    const EmbeddedInput& input = *answer->results.front();
    const absl::Status filled = WithinMemory([&] {
      FillResponse(input);
      return absl::OkStatus();
    });
    if (!filled.ok()) return this->End(filled);
    tei::v1::Metadata& metadata = *this->response_->mutable_metadata();
    metadata.set_compute_chars(CodePoints(this->request_->inputs()));
    metadata.set_compute_tokens(static_cast<uint32_t>(input.plan.tokens));
    metadata.set_tokenization_time_ns(absl::ToInt64Nanoseconds(answer->tokenization));
    metadata.set_queue_time_ns(absl::ToInt64Nanoseconds(answer->queue));
    metadata.set_inference_time_ns(absl::ToInt64Nanoseconds(answer->inference));
    metadata.set_total_time_ns(absl::ToInt64Nanoseconds(this->context_.service.clock.Now() - arrival_));
    this->End(absl::OkStatus());
  }

  const absl::Time arrival_;
  const bool wait_for_room_;
  std::string text_;  // Prompt and inputs.
  std::shared_ptr<EmbedCall> call_;
};

class TeiEmbed final : public TeiEncode<EmbedRequest, EmbedResponse> {
 public:
  using TeiEncode::TeiEncode;

 private:
  absl::Status FillOrder(EmbedOrder& order) override {
    order.vector_options.normalize = !request_->has_normalize() || request_->normalize();
    if (!request_->has_dimensions()) return absl::OkStatus();
    const absl::StatusOr<int> dimensions = ResolveDimensions({.dimensions = request_->dimensions(), .force = true},
                                                             context_.model.model().manifest.trained_dimensions);
    if (!dimensions.ok()) return dimensions.status();
    order.vector_options.dimensions = *dimensions;
    return absl::OkStatus();
  }

  void FillResponse(const EmbeddedInput& input) override {
    const std::vector<float>& values = input.vectors.front().values;
    response_->mutable_embeddings()->Add(values.begin(), values.end());
  }
};

class TeiEmbedAll final : public TeiEncode<EmbedAllRequest, EmbedAllResponse> {
 public:
  using TeiEncode::TeiEncode;

 private:
  absl::Status FillOrder(EmbedOrder& order) override {
    order.input_options.spans = SequenceTokens();
    order.vector_options.normalize = false;
    return absl::OkStatus();
  }

  void FillResponse(const EmbeddedInput& input) override {
    for (const OutputVector& vector : input.vectors) {
      response_->add_token_embeddings()->mutable_embeddings()->Add(vector.values.begin(), vector.values.end());
    }
  }
};

// Runs on the pool: tokenising takes time, and so may decoding.
template <typename Request, typename Response>
class TeiPooled : public TeiOperation<Request, Response> {
 public:
  TeiPooled(const TeiContext& context, const CallRecord& record, bool /*wait_for_room*/)
      : TeiOperation<Request, Response>(context, record) {}
  void Cancel() override { cancelled_ = true; }

 protected:
  virtual absl::Status Run() = 0;

 private:
  void Begin(absl::Time deadline) override {
    const auto run = [this, deadline] {
      const bool late = deadline <= this->context_.service.clock.Now();
      this->End(cancelled_ ? CallCancelled() : late ? DeadlineExceeded() : WithinMemory([this] { return Run(); }));
    };
    this->context_.service.pool.Run(
        run, WorkerPool::Unadmitted(static_cast<int64_t>(this->request_->ByteSizeLong()), absl::InfinitePast()));
  }

  std::atomic<bool> cancelled_ = false;
};

class TeiTokenize final : public TeiPooled<EncodeRequest, EncodeResponse> {
 public:
  using TeiPooled::TeiPooled;

 private:
  absl::Status Run() override {
    const Model& model = context_.model.model();
    if (request_->inputs().empty()) return AtField(EmptyInput(), "inputs");
    const absl::StatusOr<std::string> prompt = PromptOf(context_, *request_);
    if (!prompt.ok()) return prompt.status();
    const std::string text = *prompt + request_->inputs();
    const int64_t limit = context_.service.limits.max_tokens_per_input;
    const absl::StatusOr<TokenizedText> tokens = model.tokenizer->Tokenize(text, limit);
    if (!tokens.ok()) return tokens.status();
    if (const auto count = static_cast<int64_t>(tokens->ids.size()); count > limit) return TooManyTokens(count, limit);
    if (absl::Status status = AddSpecials(model.manifest.special_prefix); !status.ok()) return status;
    for (size_t i = 0; i < tokens->ids.size(); ++i) {
      const ByteRange range = tokens->ranges[i];
      tei::v1::SimpleToken& token = *response_->add_tokens();
      token.set_id(static_cast<uint32_t>(tokens->ids[i]));
      token.set_text(ReplaceInvalidUtf8(std::string_view(text).substr(range.begin, range.end - range.begin)));
      token.set_start(range.begin);
      token.set_stop(range.end);
    }
    return AddSpecials(model.manifest.special_suffix);
  }

  absl::Status AddSpecials(const std::vector<int32_t>& ids) {
    if (!request_->add_special_tokens()) return absl::OkStatus();
    for (const int32_t id : ids) {
      absl::StatusOr<std::string> text = context_.model.model().tokenizer->TokenText(id);
      if (!text.ok()) return text.status();
      tei::v1::SimpleToken& token = *response_->add_tokens();
      token.set_id(static_cast<uint32_t>(id));
      token.set_text(*std::move(text));
      token.set_special(true);
    }
    return absl::OkStatus();
  }
};

class TeiDecode final : public TeiPooled<DecodeRequest, DecodeResponse> {
 public:
  using TeiPooled::TeiPooled;

 private:
  absl::Status Run() override {
    const std::vector<uint32_t> ids(request_->ids().begin(), request_->ids().end());
    if (ids.empty()) return AtField(EmptyInput(), "ids");
    absl::StatusOr<std::string> text = context_.model.model().tokenizer->Decode(ids, request_->skip_special_tokens());
    if (!text.ok()) return text.status();
    response_->set_text(*std::move(text));
    return absl::OkStatus();
  }
};

// -------------------------------------------------------------------------------------------------------------- calls

// One operation as a unary call.
template <typename SomeOperation>
class TeiCall final : public UnaryCall {
 public:
  TeiCall(const char* method, const TeiContext& tei, grpc::CallbackServerContext* context, grpc::ByteBuffer* response)
      : UnaryCall(method, tei.service, context, response, ToTeiStatus),
        context_(context),
        on_gpu_(tei.model.encoder().device() != "cpu"),
        operation_(tei, record(), /*wait_for_room=*/false) {
    record().set_model(tei.model.name());
  }

  void Start(const grpc::ByteBuffer& bytes) {
    operation_.Start(bytes, record().deadline(), [this](const absl::Status& status) {
      if (!status.ok()) return Fail(status);
      AddTimes(operation_.response());
      Succeed(operation_.response());
    });
  }
  void OnCancel() override { operation_.Cancel(); }

 private:
  // TEI says the metadata in headers too, times in milliseconds.
  void AddTimes(const google::protobuf::Message& response) {
    const auto* field = response.GetDescriptor()->FindFieldByName("metadata");
    if (field == nullptr) return;
    const auto& metadata = static_cast<const tei::v1::Metadata&>(response.GetReflection()->GetMessage(response, field));
    const auto add = [this](const char* key, uint64_t value) {
      context_->AddInitialMetadata(key, absl::StrCat(value));
    };
    constexpr uint64_t kNanosAMilli = 1000000;
    context_->AddInitialMetadata("x-compute-type", on_gpu_ ? "gpu" : "cpu");
    add("x-compute-time", metadata.total_time_ns() / kNanosAMilli);
    add("x-compute-characters", metadata.compute_chars());
    add("x-compute-tokens", metadata.compute_tokens());
    add("x-total-time", metadata.total_time_ns() / kNanosAMilli);
    add("x-tokenization-time", metadata.tokenization_time_ns() / kNanosAMilli);
    add("x-queue-time", metadata.queue_time_ns() / kNanosAMilli);
    add("x-inference-time", metadata.inference_time_ns() / kNanosAMilli);
  }

  grpc::CallbackServerContext* const context_;
  const bool on_gpu_;
  SomeOperation operation_;
};

template <typename SomeOperation>
TeiEmbedService::Stream* StartStream(const char* method, const TeiContext& tei, grpc::CallbackServerContext* context) {
  return new MessageStream(  // Deletes itself.
      method, tei.service, context,
      [&tei](const CallRecord& record) { return std::make_unique<SomeOperation>(tei, record, /*wait_for_room=*/true); },
      {.max_messages = kMaxParallelOfStream,
       .max_bytes = tei.service.limits.max_request_bytes,
       .max_age = tei.service.max_stream_age,
       .client_status = ToTeiStatus});
}

// Records the call and says how it ends. Who may not call does not learn what is offered.
grpc::Status NotOffered(const char* method, grpc::CallbackServerContext& context, const TeiContext& tei,
                        const char* what) {
  CallRecord record(method, context, tei.service);
  absl::Status status = record.identity();
  if (status.ok()) status = absl::UnimplementedError(absl::StrCat("this server embeds texts; it has no ", what));
  return record.Finish(status);
}

class RefusedCall final : public grpc::ServerUnaryReactor {
 public:
  explicit RefusedCall(const grpc::Status& status) { Finish(status); }
  void OnDone() override { delete this; }
};

class RefusedReader final : public grpc::ServerReadReactor<grpc::ByteBuffer> {
 public:
  explicit RefusedReader(const grpc::Status& status) { Finish(status); }
  void OnDone() override { delete this; }
};

const char* TypeName(Precision precision) {
  switch (precision) {
    case Precision::kFloat32:
      return "float32";
    case Precision::kBfloat16:
      return "bfloat16";
    case Precision::kFloat16:
      return "float16";
    case Precision::kInt8:
      return "int8";
  }
  return "";
}

class InfoCall final : public UnaryCall {
 public:
  InfoCall(const TeiContext& tei, grpc::CallbackServerContext* context, grpc::ByteBuffer* response)
      : UnaryCall("tei.Info", tei.service, context, response), tei_(tei) {
    record().set_model(tei.model.name());
  }

  void Start(const grpc::ByteBuffer&) {
    const TeiContext& tei = tei_;
    const ModelManifest& manifest = tei.model.model().manifest;
    const LaneOptions& lane = tei.model.lane_options();
    tei::v1::InfoResponse info;
    info.set_version(tei.version);
    info.set_model_id(tei.model.name());
    info.set_model_dtype(TypeName(tei.model.encoder().precision()));
    info.set_model_type(tei::v1::MODEL_TYPE_EMBEDDING);
    info.set_max_input_length(static_cast<uint32_t>(manifest.plain_limit));
    info.set_max_batch_tokens(static_cast<uint32_t>(lane.batch.max_tokens));
    info.set_max_batch_requests(static_cast<uint32_t>(lane.batch.max_sequences));
    info.set_max_client_batch_size(static_cast<uint32_t>(tei.service.limits.max_inputs_per_call));
    info.set_tokenization_workers(static_cast<uint32_t>(tei.service.pool.threads()));
    Succeed(info);
  }

 private:
  const TeiContext& tei_;
};

}  // namespace

absl::Status ToTeiStatus(const absl::Status& status) {
  const std::string reason = ErrorReason(status);
  if (absl::IsInternal(status) || reason == "TOKENIZER_FAILED" || reason == "OUT_OF_MEMORY") {
    absl::Status failed(absl::StatusCode::kFailedPrecondition, status.message());
    status.ForEachPayload(
        [&failed](absl::string_view type, const absl::Cord& payload) { failed.SetPayload(type, payload); });
    return failed;
  }
  return status;
}

grpc::ServerUnaryReactor* TeiInfoService::Info(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                               grpc::ByteBuffer* response) {
  return StartHandler<InfoCall>(*request, context_, context, response);
}

grpc::ServerUnaryReactor* TeiEmbedService::Embed(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                                 grpc::ByteBuffer* response) {
  return StartHandler<TeiCall<TeiEmbed>>(*request, "tei.Embed", context_, context, response);
}

grpc::ServerUnaryReactor* TeiEmbedService::EmbedAll(grpc::CallbackServerContext* context,
                                                    const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return StartHandler<TeiCall<TeiEmbedAll>>(*request, "tei.EmbedAll", context_, context, response);
}

grpc::ServerUnaryReactor* TeiEmbedService::EmbedSparse(grpc::CallbackServerContext* context, const grpc::ByteBuffer*,
                                                       grpc::ByteBuffer*) {
  return new RefusedCall(NotOffered("tei.EmbedSparse", *context, context_, "sparse vectors"));
}

TeiEmbedService::Stream* TeiEmbedService::EmbedStream(grpc::CallbackServerContext* context) {
  return StartStream<TeiEmbed>("tei.EmbedStream", context_, context);
}

TeiEmbedService::Stream* TeiEmbedService::EmbedAllStream(grpc::CallbackServerContext* context) {
  return StartStream<TeiEmbedAll>("tei.EmbedAllStream", context_, context);
}

TeiEmbedService::Stream* TeiEmbedService::EmbedSparseStream(grpc::CallbackServerContext* context) {
  return new RefusedStream(NotOffered("tei.EmbedSparseStream", *context, context_, "sparse vectors"));
}

grpc::ServerUnaryReactor* TeiTokenizeService::Tokenize(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return StartHandler<TeiCall<TeiTokenize>>(*request, "tei.Tokenize", context_, context, response);
}

grpc::ServerUnaryReactor* TeiTokenizeService::Decode(grpc::CallbackServerContext* context,
                                                     const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return StartHandler<TeiCall<TeiDecode>>(*request, "tei.Decode", context_, context, response);
}

TeiTokenizeService::Stream* TeiTokenizeService::TokenizeStream(grpc::CallbackServerContext* context) {
  return StartStream<TeiTokenize>("tei.TokenizeStream", context_, context);
}

TeiTokenizeService::Stream* TeiTokenizeService::DecodeStream(grpc::CallbackServerContext* context) {
  return StartStream<TeiDecode>("tei.DecodeStream", context_, context);
}

grpc::ServerUnaryReactor* TeiPredictService::Predict(grpc::CallbackServerContext* context, const grpc::ByteBuffer*,
                                                     grpc::ByteBuffer*) {
  return new RefusedCall(NotOffered("tei.Predict", *context, context_, "classifier"));
}

grpc::ServerUnaryReactor* TeiPredictService::PredictPair(grpc::CallbackServerContext* context, const grpc::ByteBuffer*,
                                                         grpc::ByteBuffer*) {
  return new RefusedCall(NotOffered("tei.PredictPair", *context, context_, "classifier"));
}

TeiPredictService::Stream* TeiPredictService::PredictStream(grpc::CallbackServerContext* context) {
  return new RefusedStream(NotOffered("tei.PredictStream", *context, context_, "classifier"));
}

TeiPredictService::Stream* TeiPredictService::PredictPairStream(grpc::CallbackServerContext* context) {
  return new RefusedStream(NotOffered("tei.PredictPairStream", *context, context_, "classifier"));
}

grpc::ServerUnaryReactor* TeiRerankService::Rerank(grpc::CallbackServerContext* context, const grpc::ByteBuffer*,
                                                   grpc::ByteBuffer*) {
  return new RefusedCall(NotOffered("tei.Rerank", *context, context_, "reranker"));
}

TeiRerankService::Stream* TeiRerankService::RerankStream(grpc::CallbackServerContext* context, grpc::ByteBuffer*) {
  return new RefusedReader(NotOffered("tei.RerankStream", *context, context_, "reranker"));
}

}  // namespace longembed
