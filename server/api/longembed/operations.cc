#include "server/api/longembed/operations.h"

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"
#include "server/api/longembed/answer_converter.h"
#include "server/api/longembed/model_converter.h"
#include "server/api/longembed/request_converter.h"
#include "server/api/pooled_operation.h"
#include "server/core/call_preparer.h"
#include "server/core/embed_call.h"
#include "server/core/tokenizer_memory.h"
#include "server/errors/errors.h"
#include "server/errors/within_memory.h"
#include "system/return_if_error.h"

namespace longembed {
namespace {

// --------------------------------------------------------------------------------------------------------------- Embed

class Embed : public TypedOperation<v1::EmbedRequest, v1::EmbedResponse> {
 public:
  Embed(const LongembedContext& context, const CallContext& call, const Request& request, Response& response)
      : TypedOperation(call, request, response), context_(context) {}

  void Start(Done done) override {
    done_ = std::move(done);
    absl::StatusOr<EmbedParams> params = MakeParams();
    if (!params.ok()) return End(params.status());
    call_in_work_ = EmbedCall::Start(*model_, context_.pool, context_.clock, *std::move(params),
                                     [this](absl::StatusOr<EmbedAnswer> answer) { Answer(std::move(answer)); });
  }
  void Cancel() override {
    if (call_in_work_ != nullptr) call_in_work_->Cancel();
  }
  std::string model() const override { return model_ == nullptr ? "" : model_->name(); }

 private:
  virtual void Adjust(EmbedParams&) {}

  absl::StatusOr<EmbedParams> MakeParams() {
    const absl::StatusOr<ModelChoice> choice =
        ResolveModel(context_.models, context_.profiles, request_.options().model(), "options.model");
    if (!choice.ok()) return choice.status();
    model_ = choice->model;
    absl::StatusOr<ResolvedOptions> options =
        ResolveOptions(request_.options(), *choice, context_.profiles, context_.limits);
    if (!options.ok()) return options.status();
    absl::StatusOr<std::vector<absl::StatusOr<Input>>> inputs =
        ConvertInputs(request_.inputs(), options->input.spans, context_.limits, request_.partial_results());
    if (!inputs.ok()) return inputs.status();
    options_ = *std::move(options);
    EmbedParams params = ToParams(options_, *std::move(inputs), context_.limits, call_);
    params.partial_results = request_.partial_results();
    Adjust(params);
    return params;
  }

  void Answer(absl::StatusOr<EmbedAnswer> answer) {
    if (!answer.ok()) return End(answer.status());
    End(WithinMemory([&] {
      for (absl::StatusOr<EmbeddedInput>& input : answer->results) {
        FillResult(input, options_, *response_.add_results());
        input = absl::CancelledError();  // Frees its vectors, which are in the message now.
      }
      response_.set_model(model_->name());
      response_.set_prompt(options_.input.prompt);
      response_.set_recipe(options_.recipe);
      FillTiming(*answer, context_.clock.Now() - call_.arrival, *response_.mutable_timing());
      return absl::OkStatus();
    }));
  }

  const LongembedContext& context_;
  ServedModel* model_ = nullptr;
  ResolvedOptions options_;
  std::shared_ptr<EmbedCall> call_in_work_;
};

class EmbedBlankToo : public Embed {
 public:
  using Embed::Embed;

 protected:
  void Adjust(EmbedParams& params) override { params.input_options.plan.allow_empty = true; }
};

class EmbedEveryToken final : public EmbedBlankToo {
 public:
  using EmbedBlankToo::EmbedBlankToo;

 private:
  void Adjust(EmbedParams& params) override {
    EmbedBlankToo::Adjust(params);
    params.input_options.spans = SequenceTokens();
    params.vector_options.normalize = false;
  }
};

// ---------------------------------------------------------------------------------------------- Explain and Tokenize

class Explain final : public PooledOperation<v1::ExplainRequest, v1::ExplainResponse> {
 public:
  Explain(const LongembedContext& context, const CallContext& call, const Request& request, Response& response)
      : PooledOperation(context, call, request, response), context_(context) {}

  void Start(Done done) override {
    if (const absl::Status status = Resolve(); !status.ok()) return std::move(done)(status);
    PooledOperation::Start(std::move(done));
  }
  std::string model() const override { return model_ == nullptr ? "" : model_->name(); }

 private:
  absl::Status Resolve() {
    const absl::StatusOr<ModelChoice> choice =
        ResolveModel(context_.models, context_.profiles, request_.options().model(), "options.model");
    if (!choice.ok()) return choice.status();
    model_ = choice->model;
    absl::StatusOr<ResolvedOptions> options =
        ResolveOptions(request_.options(), *choice, context_.profiles, context_.limits);
    if (!options.ok()) return options.status();
    absl::StatusOr<std::vector<absl::StatusOr<Input>>> inputs =
        ConvertInputs(request_.inputs(), options->input.spans, context_.limits, /*partial_results=*/false);
    if (!inputs.ok()) return inputs.status();
    options_ = *std::move(options);
    options_.input.count_exactly = true;
    inputs_ = *std::move(inputs);
    return absl::OkStatus();
  }

  int64_t TextBytes() const override {
    int64_t bytes = 0;
    for (const absl::StatusOr<Input>& input : inputs_) {
      bytes += BytesToTokenize(model_->model(), *input, options_.input);
    }
    return bytes;
  }

  absl::Status Answer() override {
    const Model& described = model_->model();
    CallPreparer preparer(described, options_.input, call_.memory);
    for (const absl::StatusOr<Input>& input : inputs_) {
      RETURN_IF_ERROR(CheckNotCancelled());
      const absl::StatusOr<Plan> plan = preparer.Prepare(input);
      if (!plan.ok()) return plan.status();
      RETURN_IF_ERROR(HoldAnswer(PlanBytes(*plan)));
      FillExplanation(*plan, options_.vector, described.manifest, *response_.add_results());
      RETURN_IF_ERROR(HoldAnswer(0));
    }
    response_.set_model(model_->name());
    response_.set_prompt(options_.input.prompt);
    response_.set_recipe(options_.recipe);
    return absl::OkStatus();
  }

  const LongembedContext& context_;
  ServedModel* model_ = nullptr;
  ResolvedOptions options_;
  std::vector<absl::StatusOr<Input>> inputs_;  // Without errors.
};

class Tokenize final : public PooledOperation<v1::TokenizeRequest, v1::TokenizeResponse> {
 public:
  Tokenize(const LongembedContext& context, const CallContext& call, const Request& request, Response& response)
      : PooledOperation(context, call, request, response), context_(context) {}

  // Finds the model first, so that a refusal of the pool counts for it.
  void Start(Done done) override {
    const absl::StatusOr<ModelChoice> choice =
        ResolveModel(context_.models, context_.profiles, request_.model(), "model");
    if (!choice.ok()) return std::move(done)(choice.status());
    model_ = choice->model;
    PooledOperation::Start(std::move(done));
  }
  std::string model() const override { return model_ == nullptr ? "" : model_->name(); }

 private:
  int64_t TextBytes() const override {
    int64_t bytes = 0;
    for (const std::string& text : request_.texts()) bytes += static_cast<int64_t>(text.size());
    return bytes;
  }

  absl::Status Answer() override {
    if (request_.texts().empty()) return NoInputs("texts");
    if (request_.texts_size() > api_.limits.max_inputs_per_call) {
      return TooManyInputs("texts", request_.texts_size(), api_.limits.max_inputs_per_call);
    }
    const bool add_special_tokens = !request_.has_add_special_tokens() || request_.add_special_tokens();
    // Memory of a token's message, without its text.
    constexpr int64_t kBytesPerToken = 2 * sizeof(v1::Token) + 3 * sizeof(v1::Range);
    const Model& model = model_->model();
    TokenizerMemory memory(call_.memory);
    int64_t left = api_.limits.max_tokens_per_input;
    for (int i = 0; i < request_.texts_size(); ++i) {
      RETURN_IF_ERROR(CheckNotCancelled());
      const std::string& text = request_.texts(i);
      const absl::StatusOr<TokenizedText> tokens =
          TokenizeField(*model.tokenizer, absl::StrCat("texts[", i, "]"), text, left, memory);
      if (!tokens.ok()) return tokens.status();
      RETURN_IF_ERROR(HoldAnswer(std::ssize(tokens->ids) * kBytesPerToken));
      v1::TokenizedText& result = *response_.add_results();
      RETURN_IF_ERROR(FillTokens(model, text, *tokens, add_special_tokens, result));
      left -= result.tokens_size();
      RETURN_IF_ERROR(HoldAnswer(0));
    }
    response_.set_model(model_->name());
    return absl::OkStatus();
  }

  const LongembedContext& context_;
  ServedModel* model_ = nullptr;
};

// ------------------------------------------------------------------------------------------------------------- models

class ListModels final : public TypedOperation<v1::ListModelsRequest, v1::ListModelsResponse> {
 public:
  ListModels(const LongembedContext& context, const CallContext& call, const Request& request, Response& response)
      : TypedOperation(call, request, response), context_(context) {}

  void Start(Done done) override {
    done_ = std::move(done);
    for (const auto& model : context_.models.models()) {
      FillModel(*model, context_.profiles, context_.limits, *response_.add_models());
    }
    End(absl::OkStatus());
  }

 private:
  const LongembedContext& context_;
};

class GetModel final : public TypedOperation<v1::GetModelRequest, v1::Model> {
 public:
  GetModel(const LongembedContext& context, const CallContext& call, const Request& request, Response& response)
      : TypedOperation(call, request, response), context_(context) {}

  void Start(Done done) override {
    done_ = std::move(done);
    const absl::StatusOr<ModelChoice> choice =
        ResolveModel(context_.models, context_.profiles, request_.model(), "model");
    if (!choice.ok()) return End(choice.status());
    model_ = choice->model->name();
    FillModel(*choice->model, context_.profiles, context_.limits, response_);
    response_.set_profile(choice->profile);
    End(absl::OkStatus());
  }
  std::string model() const override { return model_; }

 private:
  const LongembedContext& context_;
  std::string model_;
};

}  // namespace

ApiMethod EmbedMethod(const LongembedContext& context) { return MakeMethod<Embed>("Embed", context); }
ApiMethod EmbedBlankTooMethod(const LongembedContext& context) {
  return MakeMethod<EmbedBlankToo>("EmbedBlankToo", context);
}
ApiMethod EmbedEveryTokenMethod(const LongembedContext& context) {
  return MakeMethod<EmbedEveryToken>("EmbedEveryToken", context);
}
ApiMethod ExplainMethod(const LongembedContext& context) { return MakeMethod<Explain>("Explain", context); }
ApiMethod TokenizeMethod(const LongembedContext& context) { return MakeMethod<Tokenize>("Tokenize", context); }
ApiMethod ListModelsMethod(const LongembedContext& context) { return MakeMethod<ListModels>("ListModels", context); }
ApiMethod GetModelMethod(const LongembedContext& context) { return MakeMethod<GetModel>("GetModel", context); }

}  // namespace longembed
