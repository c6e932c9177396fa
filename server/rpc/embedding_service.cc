#include "server/rpc/embedding_service.h"

#include <google/protobuf/arena.h>

#include <atomic>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"
#include "server/core/embed_call.h"
#include "server/errors/errors.h"
#include "server/errors/within_memory.h"
#include "server/rpc/converters.h"
#include "server/rpc/embed_stream.h"
#include "server/rpc/unary_call.h"
#include "server/rpc/wire.h"

namespace longembed {
namespace {

// A unary call with its messages, which live on one arena as long as the call.
template <typename Request, typename Response>
class Call : public UnaryCall {
 public:
  using UnaryCall::UnaryCall;

 protected:
  absl::Status Parse(const grpc::ByteBuffer& bytes) {
    return ParseMessage(bytes, service_.limits.max_request_bytes, *request_);
  }

  absl::StatusOr<ServedModel*> FindModel(std::string_view name, std::string_view field) {
    absl::StatusOr<ServedModel*> model = service_.models.Find(name, field);
    if (model.ok()) record().set_model((*model)->name());
    return model;
  }

 private:
  google::protobuf::Arena arena_;

 protected:
  Request* const request_ = google::protobuf::Arena::CreateMessage<Request>(&arena_);
  Response* const response_ = google::protobuf::Arena::CreateMessage<Response>(&arena_);
};

// --------------------------------------------------------------------------------------------------------------- Embed

class EmbedRpc final : public Call<v1::EmbedRequest, v1::EmbedResponse> {
 public:
  using Call::Call;

  void Start(const grpc::ByteBuffer& bytes) {
    absl::StatusOr<EmbedOrder> order = MakeOrder(bytes);
    if (!order.ok()) return Fail(order.status());
    call_ = EmbedCall::Start(*model_, service_.pool, service_.clock, *std::move(order),
                             [this](absl::StatusOr<EmbedAnswer> answer) { Answer(std::move(answer)); });
  }

  // gRPC calls this after Start has returned, never after OnDone.
  void OnCancel() override {
    if (call_ != nullptr) call_->Cancel();
  }

 private:
  absl::StatusOr<EmbedOrder> MakeOrder(const grpc::ByteBuffer& bytes) {
    if (const absl::Status status = Parse(bytes); !status.ok()) return status;
    const absl::StatusOr<ServedModel*> model = FindModel(request_->options().model(), "options.model");
    if (!model.ok()) return model.status();
    model_ = *model;
    absl::StatusOr<ResolvedOptions> options =
        ResolveOptions(request_->options(), *model_, service_.profiles, service_.limits);
    if (!options.ok()) return options.status();
    absl::StatusOr<std::vector<Input>> inputs =
        ConvertInputs(request_->inputs(), options->input.spans, service_.limits);
    if (!inputs.ok()) return inputs.status();
    options_ = *std::move(options);
    EmbedOrder order = ToOrder(options_, *std::move(inputs), service_.limits);
    order.deadline = record().deadline();
    order.partial_results = request_->partial_results();
    record().SignOrder(order);
    return order;
  }

  void Answer(absl::StatusOr<EmbedAnswer> answer) {
    if (!answer.ok()) return Fail(answer.status());
    const absl::Status filled = WithinMemory([&] {
      for (const auto& input : answer->results) FillResult(input, options_, *response_->add_results());
      return absl::OkStatus();
    });
    if (!filled.ok()) return Fail(filled);
    response_->set_model(model_->name());
    response_->set_prompt(options_.input.prompt);
    response_->set_recipe(options_.recipe);
    FillTiming(*answer, service_.clock.Now() - record().arrival(), *response_->mutable_timing());
    Succeed(*response_);
  }

  ServedModel* model_ = nullptr;
  ResolvedOptions options_;
  std::shared_ptr<EmbedCall> call_;
};

// ---------------------------------------------------------------------------------------------- Explain and Tokenize
// Both tokenise, so they run on the pool and look now and then whether somebody still waits.

template <typename Request, typename Response>
class PooledCall : public Call<Request, Response> {
 public:
  using Call<Request, Response>::Call;

  void Start(const grpc::ByteBuffer& bytes) {
    if (const absl::Status status = this->Parse(bytes); !status.ok()) return this->Fail(status);
    const auto answer = [this] {
      absl::Status status = CheckStillWanted();
      if (status.ok()) status = WithinMemory([this] { return Answer(); });
      status.ok() ? this->Succeed(*this->response_) : this->Fail(status);
    };
    this->service_.pool.Run(answer,
                            WorkerPool::Unadmitted(static_cast<int64_t>(bytes.Length()), this->record().arrival()));
  }

  void OnCancel() override { cancelled_ = true; }

 protected:
  // Fills the response, on a thread of the pool's.
  virtual absl::Status Answer() = 0;

  absl::Status CheckStillWanted() const {
    if (cancelled_) return CallCancelled();
    return this->record().deadline() <= this->service_.clock.Now() ? DeadlineExceeded() : absl::OkStatus();
  }

 private:
  std::atomic<bool> cancelled_ = false;
};

class ExplainRpc final : public PooledCall<v1::ExplainRequest, v1::ExplainResponse> {
 public:
  using PooledCall::PooledCall;

 private:
  absl::Status Answer() override {
    const absl::StatusOr<ServedModel*> model = FindModel(request_->options().model(), "options.model");
    if (!model.ok()) return model.status();
    const Model& described = (*model)->model();
    const absl::StatusOr<ResolvedOptions> options =
        ResolveOptions(request_->options(), **model, service_.profiles, service_.limits);
    if (!options.ok()) return options.status();
    const absl::StatusOr<std::vector<Input>> inputs =
        ConvertInputs(request_->inputs(), options->input.spans, service_.limits);
    if (!inputs.ok()) return inputs.status();
    CallPreparer preparer(described, options->input);
    for (const Input& input : *inputs) {
      if (absl::Status status = CheckStillWanted(); !status.ok()) return status;
      const absl::StatusOr<Plan> plan = preparer.Prepare(input);
      if (!plan.ok()) return plan.status();
      FillExplanation(*plan, described.manifest, *response_->add_results());
    }
    response_->set_model((*model)->name());
    response_->set_prompt(options->input.prompt);
    response_->set_recipe(options->recipe);
    return absl::OkStatus();
  }
};

class TokenizeRpc final : public PooledCall<v1::TokenizeRequest, v1::TokenizeResponse> {
 public:
  using PooledCall::PooledCall;

 private:
  absl::Status Answer() override {
    const absl::StatusOr<ServedModel*> model = FindModel(request_->model(), "model");
    if (!model.ok()) return model.status();
    if (request_->texts().empty()) return NoInputs("texts");
    if (request_->texts_size() > service_.limits.max_inputs_per_call) {
      return TooManyInputs("texts", request_->texts_size(), service_.limits.max_inputs_per_call);
    }
    const bool add_special_tokens = !request_->has_add_special_tokens() || request_->add_special_tokens();
    int64_t left = service_.limits.max_tokens_per_input;
    for (int i = 0; i < request_->texts_size(); ++i) {
      if (absl::Status status = CheckStillWanted(); !status.ok()) return status;
      v1::TokenizedText& result = *response_->add_results();
      const absl::Status status = FillTokens((*model)->model(), request_->texts(i), add_special_tokens, left, result);
      if (!status.ok()) return AtField(status, absl::StrCat("texts[", i, "]"));
      left -= result.tokens_size();
    }
    response_->set_model((*model)->name());
    return absl::OkStatus();
  }
};

// ------------------------------------------------------------------------------------------------------------- models

class ListModelsRpc final : public Call<v1::ListModelsRequest, v1::ListModelsResponse> {
 public:
  using Call::Call;

  void Start(const grpc::ByteBuffer& bytes) {
    if (const absl::Status status = Parse(bytes); !status.ok()) return Fail(status);
    for (const auto& model : service_.models.models())
      FillModel(*model, service_.profiles, service_.limits, *response_->add_models());
    Succeed(*response_);
  }
};

class GetModelRpc final : public Call<v1::GetModelRequest, v1::Model> {
 public:
  using Call::Call;

  void Start(const grpc::ByteBuffer& bytes) {
    if (const absl::Status status = Parse(bytes); !status.ok()) return Fail(status);
    const absl::StatusOr<ServedModel*> model = FindModel(request_->model(), "model");
    if (!model.ok()) return Fail(model.status());
    FillModel(**model, service_.profiles, service_.limits, *response_);
    Succeed(*response_);
  }
};

}  // namespace

grpc::ServerUnaryReactor* EmbeddingServiceImpl::Embed(grpc::CallbackServerContext* context,
                                                      const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return StartHandler<EmbedRpc>(*request, "Embed", context_, context, response);
}

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* EmbeddingServiceImpl::EmbedStream(
    grpc::CallbackServerContext* context) {
  return StartEmbedStream(context_, context);
}

grpc::ServerUnaryReactor* EmbeddingServiceImpl::Explain(grpc::CallbackServerContext* context,
                                                        const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return StartHandler<ExplainRpc>(*request, "Explain", context_, context, response);
}

grpc::ServerUnaryReactor* EmbeddingServiceImpl::Tokenize(grpc::CallbackServerContext* context,
                                                         const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return StartHandler<TokenizeRpc>(*request, "Tokenize", context_, context, response);
}

grpc::ServerUnaryReactor* EmbeddingServiceImpl::ListModels(grpc::CallbackServerContext* context,
                                                           const grpc::ByteBuffer* request,
                                                           grpc::ByteBuffer* response) {
  return StartHandler<ListModelsRpc>(*request, "ListModels", context_, context, response);
}

grpc::ServerUnaryReactor* EmbeddingServiceImpl::GetModel(grpc::CallbackServerContext* context,
                                                         const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return StartHandler<GetModelRpc>(*request, "GetModel", context_, context, response);
}

}  // namespace longembed
