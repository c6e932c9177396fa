#include "server/api/tei/operations.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "model/errors/errors.h"
#include "model/text/utf8.h"
#include "server/api/longembed/request_converter.h"
#include "server/api/pooled_operation.h"
#include "server/core/embed_call.h"
#include "server/core/tokenizer_memory.h"
#include "server/errors/errors.h"
#include "server/errors/reworded.h"
#include "server/errors/within_memory.h"
#include "system/return_if_error.h"
#include "tei/v1/http.pb.h"
#include "tei/v1/tei.pb.h"

namespace longembed {
namespace {

using tei::v1::DecodeRequest;
using tei::v1::DecodeResponse;
using tei::v1::EmbedAllRequest;
using tei::v1::EmbedAllResponse;
using tei::v1::EmbedRequest;
using tei::v1::EmbedResponse;
using tei::v1::EmbedSparseRequest;
using tei::v1::EmbedSparseResponse;
using tei::v1::EncodeRequest;
using tei::v1::EncodeResponse;

absl::StatusOr<std::string> NamedPrompt(const TeiContext& context, const std::string& name) {
  const auto& prompts = context.model.model().manifest.prompts;
  const auto found = prompts.find(name);
  if (found != prompts.end()) return found->second;
  std::vector<std::string> known;
  for (const auto& [known_name, prompt] : prompts) known.push_back(known_name);
  return UnknownPrompt("prompt_name", name, known);
}

template <typename Request>
absl::StatusOr<std::string> PromptOf(const TeiContext& context, const Request& request) {
  return request.has_prompt_name() ? NamedPrompt(context, request.prompt_name()) : context.default_prompt;
}

absl::StatusOr<Truncate> TruncateOf(bool truncate, int direction) {
  if (direction != tei::v1::TRUNCATION_DIRECTION_RIGHT && direction != tei::v1::TRUNCATION_DIRECTION_LEFT) {
    return UnknownEnumValue("truncation_direction", direction);
  }
  if (!truncate) return Truncate::kNone;
  return direction == tei::v1::TRUNCATION_DIRECTION_RIGHT ? Truncate::kEnd : Truncate::kStart;
}

// Names fields and remedies as tei.v1 does, whose requests hold one text and no options of longembed.v1.
absl::Status InTei(const absl::Status& status) {
  const absl::Status renamed = RenameField(RenameField(status, "inputs[0]", "inputs"), "options.", "");
  return Reworded(
      renamed, renamed.code(),
      absl::StrReplaceAll(renamed.message(), {{"(options.extension)", "(tei.profile in the server's config)"},
                                              {"options.truncate END or START", "truncate"}}));
}

// --------------------------------------------------------------------------------------------------------- operations

// Shared code of Embed, EmbedAll and EmbedSparse: the scheduler encodes one text.
template <typename RequestType, typename ResponseType>
class TeiEncode : public TypedOperation<RequestType, ResponseType> {
 public:
  TeiEncode(const TeiContext& context, const CallContext& call, const RequestType& request, ResponseType& response)
      : TypedOperation<RequestType, ResponseType>(call, request, response), context_(context) {}

  void Start(Operation::Done done) override {
    this->done_ = std::move(done);
    absl::StatusOr<EmbedParams> params = MakeParams();
    if (!params.ok()) return this->End(InTei(params.status()));
    embed_ = EmbedCall::Start(context_.model, context_.pool, context_.clock, *std::move(params),
                              [this](absl::StatusOr<EmbedAnswer> answer) { Answer(std::move(answer)); });
  }
  void Cancel() override {
    if (embed_ != nullptr) embed_->Cancel();
  }
  std::string model() const override { return context_.model.name(); }

  Operation::Headers headers() const override { return HeadersOf(context_, this->response_.metadata()); }

 protected:
  virtual absl::Status FillParams(EmbedParams& params) = 0;
  virtual void FillResponse(const EmbeddedInput& input) = 0;

  const TeiContext& context_;

 private:
  absl::StatusOr<EmbedParams> MakeParams() {
    const RequestType& request = this->request_;
    if (request.inputs().empty()) return AtField(EmptyInput(), "inputs");
    absl::StatusOr<std::string> prompt = PromptOf(context_, request);
    if (!prompt.ok()) return prompt.status();
    const absl::StatusOr<Truncate> truncate = TruncateOf(request.truncate(), request.truncation_direction());
    if (!truncate.ok()) return truncate.status();
    EmbedParams params{.call = this->call_,
                       .input_options = {.plan = {.truncate = *truncate,
                                                  .limits = ToPlanLimits(context_.limits),
                                                  .allow_empty = true}},
                       .vector_options = {.dimensions = context_.model.model().manifest.vector_size},
                       .max_response_bytes = context_.limits.max_response_bytes};
    const absl::Status text =
        context_.extension.has_value() ? AddExtended(*std::move(prompt), params) : AddPlain(*std::move(prompt), params);
    if (!text.ok()) return text;
    RETURN_IF_ERROR(FillParams(params));
    return params;
  }

  // Adds prompt and text as one, because TEI tokenizes and truncates them together.
  absl::Status AddPlain(std::string prompt, EmbedParams& params) {
    text_ = std::move(prompt) + this->request_.inputs();
    params.inputs.emplace_back(Input(std::string_view(text_)));
    return this->call_.memory.HoldMore(Memory::kRequests, static_cast<int64_t>(text_.size()));
  }

  // Adds the text as longembed.v1 does with this extension: each window has the prompt, and truncation cuts only text
  // that exceeds what the extension can hold.
  absl::Status AddExtended(std::string prompt, EmbedParams& params) {
    params.inputs.emplace_back(Input(std::string_view(this->request_.inputs())));
    params.input_options.prompt = std::move(prompt);
    PlanOptions& plan = params.input_options.plan;
    plan.extension = *context_.extension;
    if (!plan.extension.windows.has_value()) return absl::OkStatus();
    if (plan.truncate != Truncate::kNone) plan.max_tokens = context_.limits.max_tokens_per_input;
    params.vector_options.windows = *plan.extension.windows;
    return absl::OkStatus();
  }

  void Answer(absl::StatusOr<EmbedAnswer> answer) {
    if (!answer.ok()) return this->End(InTei(answer.status()));
    const EmbeddedInput& input = *answer->results.front();
    const absl::Status filled = WithinMemory([&] {
      FillResponse(input);
      return absl::OkStatus();
    });
    if (!filled.ok()) return this->End(filled);
    tei::v1::Metadata& metadata = *this->response_.mutable_metadata();
    metadata.set_compute_chars(CodePoints(this->request_.inputs()));
    metadata.set_compute_tokens(static_cast<uint32_t>(input.plan.tokens));
    metadata.set_tokenization_time_ns(absl::ToInt64Nanoseconds(answer->tokenization));
    metadata.set_queue_time_ns(absl::ToInt64Nanoseconds(answer->queue));
    metadata.set_inference_time_ns(absl::ToInt64Nanoseconds(answer->inference));
    metadata.set_total_time_ns(absl::ToInt64Nanoseconds(context_.clock.Now() - this->call_.arrival));
    this->End(absl::OkStatus());
  }

  std::string text_;  // Prompt and inputs, if there is no extension.
  std::shared_ptr<EmbedCall> embed_;
};

class TeiEmbed final : public TeiEncode<EmbedRequest, EmbedResponse> {
 public:
  using TeiEncode::TeiEncode;

 private:
  absl::Status FillParams(EmbedParams& params) override {
    params.vector_options.normalize = !request_.has_normalize() || request_.normalize();
    if (!request_.has_dimensions()) return absl::OkStatus();
    const absl::StatusOr<int> dimensions = ResolveDimensions({.dimensions = request_.dimensions(), .force = true},
                                                             context_.model.model().manifest.trained_dimensions);
    if (!dimensions.ok()) return dimensions.status();
    params.vector_options.dimensions = *dimensions;
    return absl::OkStatus();
  }

  void FillResponse(const EmbeddedInput& input) override {
    const std::vector<float>& values = input.vectors.front().values;
    response_.mutable_embeddings()->Add(values.begin(), values.end());
  }
};

class TeiEmbedAll final : public TeiEncode<EmbedAllRequest, EmbedAllResponse> {
 public:
  using TeiEncode::TeiEncode;

 private:
  absl::Status FillParams(EmbedParams& params) override {
    params.input_options.spans = SequenceTokens();
    params.vector_options.normalize = false;
    return absl::OkStatus();
  }

  void FillResponse(const EmbeddedInput& input) override {
    for (const OutputVector& vector : input.vectors) {
      response_.add_token_embeddings()->mutable_embeddings()->Add(vector.values.begin(), vector.values.end());
    }
  }
};

class TeiEmbedSparse final : public TeiEncode<EmbedSparseRequest, EmbedSparseResponse> {
 public:
  using TeiEncode::TeiEncode;

 private:
  absl::Status FillParams(EmbedParams& params) override {
    params.input_options.plan.sparse = true;
    AggregateSparse(params.input_options.plan.extension);
    return absl::OkStatus();
  }

  void FillResponse(const EmbeddedInput& input) override {
    const OutputVector& vector = input.vectors.front();
    for (size_t i = 0; i < vector.indices.size(); ++i) {
      tei::v1::SparseValue& value = *response_.add_sparse_embeddings();
      value.set_index(static_cast<uint32_t>(vector.indices[i]));
      value.set_value(vector.values[i]);
    }
  }
};

// Runs on the worker pool, because tokenizing is slow and decoding may be.
template <typename RequestType, typename ResponseType>
class TeiPooled : public PooledOperation<RequestType, ResponseType> {
 public:
  TeiPooled(const TeiContext& context, const CallContext& call, const RequestType& request, ResponseType& response)
      : PooledOperation<RequestType, ResponseType>(context, call, request, response), context_(context) {}
  std::string model() const override { return context_.model.name(); }

 protected:
  const TeiContext& context_;
};

class TeiTokenize final : public TeiPooled<EncodeRequest, EncodeResponse> {
 public:
  using TeiPooled::TeiPooled;

 private:
  int64_t TextBytes() const override {
    const absl::StatusOr<std::string> prompt = PromptOf(context_, request_);
    return static_cast<int64_t>(request_.inputs().size() + (prompt.ok() ? prompt->size() : 0));
  }

  absl::Status Answer() override {
    const Model& model = context_.model.model();
    if (request_.inputs().empty()) return AtField(EmptyInput(), "inputs");
    const absl::StatusOr<std::string> prompt = PromptOf(context_, request_);
    if (!prompt.ok()) return prompt.status();
    const std::string text = *prompt + request_.inputs();
    const auto bytes = static_cast<int64_t>(text.size());
    RETURN_IF_ERROR(call_.memory.HoldMore(Memory::kRequests, bytes));
    TokenizerMemory memory(call_.memory);
    const absl::StatusOr<TokenizedText> tokens =
        TokenizeField(*model.tokenizer, "inputs", text, context_.limits.max_tokens_per_input, memory);
    if (!tokens.ok()) return tokens.status();
    // Memory of a token's message, without its text.
    constexpr int64_t kBytesPerToken = 2 * sizeof(tei::v1::SimpleToken);
    const auto held = static_cast<int64_t>(tokens->ids.size()) * kBytesPerToken;
    RETURN_IF_ERROR(HoldAnswer(held));
    RETURN_IF_ERROR(AddSpecials(model.manifest.special_prefix));
    for (size_t i = 0; i < tokens->ids.size(); ++i) {
      const ByteRange range = tokens->ranges[i];
      tei::v1::SimpleToken& token = *response_.add_tokens();
      token.set_id(static_cast<uint32_t>(tokens->ids[i]));
      token.set_text(ReplaceInvalidUtf8(std::string_view(text).substr(range.begin, range.end - range.begin)));
      token.set_start(range.begin);
      token.set_stop(range.end);
    }
    return AddSpecials(model.manifest.special_suffix);
  }

  absl::Status AddSpecials(const std::vector<int32_t>& ids) {
    if (!request_.add_special_tokens()) return absl::OkStatus();
    for (const int32_t id : ids) {
      absl::StatusOr<std::string> text = context_.model.model().tokenizer->TokenText(id);
      if (!text.ok()) return text.status();
      tei::v1::SimpleToken& token = *response_.add_tokens();
      token.set_id(static_cast<uint32_t>(id));
      token.set_text(*std::move(text));
      token.set_special(true);
    }
    return absl::OkStatus();
  }
};

// `field` is the name of the ids in the request.
absl::Status DecodeInto(const TeiContext& context, const DecodeRequest& request, const std::string& field,
                        DecodeResponse& response) {
  const std::vector<uint32_t> ids(request.ids().begin(), request.ids().end());
  if (ids.empty()) return AtField(EmptyInput(), field);
  absl::StatusOr<std::string> text = context.model.model().tokenizer->Decode(ids, request.skip_special_tokens());
  if (!text.ok()) return AtField(text.status(), field);
  response.set_text(*std::move(text));
  return absl::OkStatus();
}

constexpr int64_t kBytesPerToken = 4;  // A rough estimate: the text of a token has about four bytes.
// The tokenizer decodes each token to a string of its own, sometimes twice. Measured: 45 bytes a token for WordPiece.
constexpr int64_t kDecodingBytesPerToken = 96;

class TeiDecode final : public TeiPooled<DecodeRequest, DecodeResponse> {
 public:
  using TeiPooled::TeiPooled;

 private:
  int64_t TextBytes() const override { return kBytesPerToken * request_.ids_size(); }

  absl::Status Answer() override {
    RETURN_IF_ERROR(HoldAnswer(kDecodingBytesPerToken * request_.ids_size()));
    RETURN_IF_ERROR(DecodeInto(context_, request_, "ids", response_));
    return HoldAnswer(static_cast<int64_t>(response_.text().size()));
  }
};

class TeiDecodeInputs final : public TeiPooled<tei::v1::DecodeInputs, tei::v1::DecodedInputs> {
 public:
  using TeiPooled::TeiPooled;

 private:
  int64_t TextBytes() const override {
    int64_t bytes = 0;
    for (const DecodeRequest& input : request_.inputs()) bytes += kBytesPerToken * input.ids_size();
    return bytes;
  }

  absl::Status Answer() override {
    const int64_t limit = context_.limits.max_inputs_per_call;
    if (request_.inputs_size() == 0) return NoInputs("ids");
    if (request_.inputs_size() > limit) return TooManyInputs("ids", request_.inputs_size(), limit);
    int64_t text_bytes = 0;
    for (int i = 0; i < request_.inputs_size(); ++i) {
      RETURN_IF_ERROR(CheckNotCancelled());
      DecodeResponse& result = *response_.add_results();
      const std::string field = request_.inputs_size() == 1 ? "ids" : absl::StrCat("ids[", i, "]");
      RETURN_IF_ERROR(HoldAnswer(text_bytes + kDecodingBytesPerToken * request_.inputs(i).ids_size()));
      RETURN_IF_ERROR(DecodeInto(context_, request_.inputs(i), field, result));
      text_bytes += static_cast<int64_t>(result.text().size());
      RETURN_IF_ERROR(HoldAnswer(text_bytes));
    }
    return absl::OkStatus();
  }
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

// Returns the maximum number of tokens of a text.
int64_t MaxInputLength(const TeiContext& context) {
  const ModelManifest& manifest = context.model.model().manifest;
  const LimitsConfig& limits = context.limits;
  const Extension extension = context.extension.value_or(Extension());
  if (extension.windows.has_value()) return limits.max_tokens_per_input;
  const int64_t most = std::min(limits.max_tokens_per_sequence, limits.max_tokens_per_input);
  return std::min(SequenceCapacity(manifest, extension).value_or(most), most);
}

class TeiInfo final : public TypedOperation<tei::v1::InfoRequest, tei::v1::InfoResponse> {
 public:
  TeiInfo(const TeiContext& context, const CallContext& call, const Request& request, Response& response)
      : TypedOperation(call, request, response), context_(context) {}

  void Start(Done done) override {
    done_ = std::move(done);
    const LaneOptions& lane = context_.model.lane_options();
    response_.set_version(context_.version);
    response_.set_model_id(context_.model.name());
    response_.set_model_dtype(TypeName(context_.model.encoder().precision()));
    response_.set_model_type(tei::v1::MODEL_TYPE_EMBEDDING);
    response_.set_max_input_length(static_cast<uint32_t>(MaxInputLength(context_)));
    response_.set_max_batch_tokens(static_cast<uint32_t>(lane.batch.max_tokens));
    response_.set_max_batch_requests(static_cast<uint32_t>(lane.batch.max_sequences));
    response_.set_max_client_batch_size(static_cast<uint32_t>(context_.limits.max_inputs_per_call));
    response_.set_tokenization_workers(static_cast<uint32_t>(context_.pool.threads()));
    End(absl::OkStatus());
  }
  std::string model() const override { return context_.model.name(); }

 private:
  const TeiContext& context_;
};

template <typename OperationType>
ApiMethod MakeTeiMethod(const char* name, const TeiContext& context) {
  ApiMethod method = MakeMethod<OperationType>(name, context);
  method.client_status = ToTeiStatus;
  return method;
}

// Returns a method whose output the model may lack.
template <typename OperationType>
ApiMethod MakeTeiMethod(const char* name, const TeiContext& context, bool available, const char* output) {
  return available ? MakeTeiMethod<OperationType>(name, context) : TeiUnsupported(name, output);
}

bool GivesPooled(const TeiContext& context) { return context.model.model().manifest.pooling != Pooling::kNone; }
bool GivesSparse(const TeiContext& context) {
  return context.model.model().manifest.sparse_head != SparseHeadKind::kNone;
}

}  // namespace

uint32_t CodePoints(std::string_view text) {
  return static_cast<uint32_t>(std::ranges::count_if(text, [](char c) { return !IsContinuationByte(c); }));
}

Operation::Headers HeadersOf(const TeiContext& context, const tei::v1::Metadata& metadata) {
  const auto millis = [](uint64_t nanos) { return absl::StrCat(nanos / 1000000); };
  return {{"x-compute-type", context.model.encoder().device() == "cpu" ? "cpu" : "gpu"},
          {"x-compute-time", millis(metadata.total_time_ns())},
          {"x-compute-characters", absl::StrCat(metadata.compute_chars())},
          {"x-compute-tokens", absl::StrCat(metadata.compute_tokens())},
          {"x-total-time", millis(metadata.total_time_ns())},
          {"x-tokenization-time", millis(metadata.tokenization_time_ns())},
          {"x-queue-time", millis(metadata.queue_time_ns())},
          {"x-inference-time", millis(metadata.inference_time_ns())}};
}

absl::StatusOr<std::string> TeiPrompt(const TeiContext& context, const std::string& prompt_name) {
  return prompt_name.empty() ? context.default_prompt : NamedPrompt(context, prompt_name);
}

absl::Status ToTeiStatus(const absl::Status& status) {
  const std::string reason = ErrorReason(status);
  if (absl::IsInternal(status) || reason == "TOKENIZER_FAILED" || reason == "OUT_OF_MEMORY") {
    return Reworded(status, absl::StatusCode::kFailedPrecondition, status.message());
  }
  return status;
}

ApiMethod TeiInfoMethod(const TeiContext& context) { return MakeMethod<TeiInfo>("tei.Info", context); }
ApiMethod TeiEmbedMethod(const char* name, const TeiContext& context) {
  return MakeTeiMethod<TeiEmbed>(name, context, GivesPooled(context), "dense vectors");
}
ApiMethod TeiEmbedAllMethod(const char* name, const TeiContext& context) {
  return MakeTeiMethod<TeiEmbedAll>(name, context, GivesPooled(context), "dense vectors");
}
ApiMethod TeiEmbedSparseMethod(const char* name, const TeiContext& context) {
  return MakeTeiMethod<TeiEmbedSparse>(name, context, GivesSparse(context), "sparse vectors");
}
ApiMethod TeiTokenizeMethod(const char* name, const TeiContext& context) {
  return MakeTeiMethod<TeiTokenize>(name, context);
}
ApiMethod TeiDecodeMethod(const char* name, const TeiContext& context) {
  return MakeTeiMethod<TeiDecode>(name, context);
}
ApiMethod TeiDecodeInputsMethod(const char* name, const TeiContext& context) {
  return MakeTeiMethod<TeiDecodeInputs>(name, context);
}
ApiMethod TeiUnsupported(const char* name, const char* what) { return {.name = name, .missing_requirement = what}; }

}  // namespace longembed
