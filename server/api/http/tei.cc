#include "server/api/http/tei.h"

#include <google/protobuf/util/time_util.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "model/errors/errors.h"
#include "model/text/utf8.h"
#include "server/api/http/embed_dialect.h"
#include "server/errors/errors.h"
#include "server/errors/reworded.h"
#include "server/http/json.h"
#include "system/return_if_error.h"
#include "tei/v1/http.pb.h"
#include "tei/v1/tei.pb.h"

namespace longembed {
namespace {

using google::protobuf::Message;
using nlohmann::json;

// Returns TEI's error type and HTTP status.
std::pair<const char*, int> KindOf(const absl::Status& status) {
  constexpr int kBadRequest = 400, kUnprocessable = 422, kTooLarge = 413, kBackend = 424;
  const std::string reason = ErrorReason(status);
  if (reason == "NO_INPUTS") return {"Empty", kBadRequest};
  if (reason == "TOO_MANY_INPUTS") return {"Validation", kTooLarge};
  if (reason == "OUTPUT_NOT_AVAILABLE") return {"Backend", kBackend};
  switch (ToTeiStatus(status).code()) {
    case absl::StatusCode::kInvalidArgument:
      return {"Validation", HttpStatusOf(status) == kBadRequest ? kUnprocessable : HttpStatusOf(status)};
    case absl::StatusCode::kFailedPrecondition:
      return {"Backend", kBackend};
    case absl::StatusCode::kResourceExhausted:
      return {"Overloaded", HttpStatusOf(status)};
    case absl::StatusCode::kUnavailable:
      return {"Unhealthy", HttpStatusOf(status)};
    default:
      return {"Backend", HttpStatusOf(status)};
  }
}

// Returns whether the model gives weights of vocabulary entries and no vectors. TEI calls that the pooling "splade".
bool IsSplade(const TeiContext& tei) {
  const ModelManifest& manifest = tei.model.model().manifest;
  return manifest.pooling == Pooling::kNone && manifest.sparse_head != SparseHeadKind::kNone;
}

// Names remedies as TEI's requests do, whose `truncate` is true or false.
absl::Status InTei(const absl::Status& status) {
  return Reworded(status, status.code(),
                  absl::StrReplaceAll(status.message(), {{"truncate END or START", "truncate"}}));
}

class TeiDialect : public JsonDialect {
 public:
  explicit TeiDialect(const TeiContext& tei) : tei_(tei) {}

  Error Describe(const absl::Status& status) const override {
    json error = ErrorObject(InTei(InDialect(RenameField(status, "texts", "inputs"), "inputs", is_single_)),
                             {.message = "error"});
    const auto [type, http_status] = KindOf(status);
    error["error_type"] = type;
    return {http_status, JsonText(error)};
  }

 protected:
  const TeiContext& tei_;
  bool is_single_ = false;
};

// The dialect of /embed, /embed_all and /embed_sparse.
class TeiVectors : public TeiDialect {
 public:
  // May stop once the text has more than `max_bytes`.
  using AppendResult = void (*)(const v1::EmbedResult& result, size_t max_bytes, std::string& text);

  // The differences between the routes.
  struct Form {
    v1::EmbedOptions::Output output = v1::EmbedOptions::ONE_VECTOR;
    bool takes_normalize = false;  // As in TEI, vectors of tokens are as the model gives them.
    AppendResult append;
  };

  TeiVectors(const LongembedContext& context, const TeiContext& tei, const Form& form)
      : TeiDialect(tei), context_(context), form_(form) {}

  // A weight has two names and two numbers in JSON, and about six bytes on the wire.
  int64_t MostSerializedBytes(int64_t wire_bytes) const override {
    return form_.output == v1::EmbedOptions::SPARSE ? 8 * wire_bytes : TeiDialect::MostSerializedBytes(wire_bytes);
  }

 private:
  absl::Status Read(const json& body, Message& message) override {
    auto& request = static_cast<v1::EmbedRequest&>(message);
    v1::EmbedOptions& options = *request.mutable_options();
    JsonFields fields(body);
    InputReader inputs("inputs", request);
    const absl::Status read = inputs.Read(fields.Take("inputs"));
    is_single_ = inputs.is_single();
    RETURN_IF_ERROR(read);
    RETURN_IF_ERROR(ReadOwn(fields, options));
    RETURN_IF_ERROR(ReadInferenceOptions(fields.Take("options")));
    RETURN_IF_ERROR(fields.TakeOptions({"extension", "max_tokens", "priority"}, options));
    Extend(options);
    RETURN_IF_ERROR(fields.CheckAllTaken());
    for (int i = 0; i < request.inputs_size(); ++i) {
      const v1::Input& input = request.inputs(i);
      if (input.has_text() && input.text().empty()) return AtField(EmptyInput(), absl::StrCat("inputs[", i, "]"));
      characters_ += CodePoints(input.text());
    }
    RETURN_IF_ERROR(CheckTokenIds(request, context_.models, context_.profiles));
    return SetPrompt(request);
  }

  // Reads the options of Hugging Face's Inference API, which clients such as Weaviate send to TEI, too. They say
  // whether to wait for the model, to cache, and to use a GPU, none of which changes a vector.
  static absl::Status ReadInferenceOptions(const json* options) {
    if (options == nullptr) return absl::OkStatus();
    if (!options->is_object()) return WrongJsonType("options", "an object", options->type_name());
    JsonFields fields(*options);
    for (const char* const name : {"wait_for_model", "use_cache", "use_gpu"}) {
      bool ignored = false;
      RETURN_IF_ERROR(fields.Take(name, ignored));
    }
    return fields.CheckAllTaken();
  }

  // Adds the prompt. As in TEI it is part of the text, so truncation may cut it away. With an extension every window
  // has it.
  absl::Status SetPrompt(v1::EmbedRequest& request) const {
    const absl::StatusOr<std::string> prompt = TeiPrompt(tei_, prompt_name_);
    if (!prompt.ok()) return prompt.status();
    if (!prompt_name_.empty()) RETURN_IF_ERROR(CheckPromptHasTexts(request, "prompt_name"));
    v1::EmbedOptions& options = *request.mutable_options();
    options.set_prompt(options.has_extension() ? *prompt : "");
    if (options.has_extension() || prompt->empty()) return absl::OkStatus();
    for (v1::Input& input : *request.mutable_inputs()) {
      if (!input.text().empty()) input.mutable_text()->insert(0, *prompt);
    }
    return absl::OkStatus();
  }

  // Applies the config's extension if the request has none. As over gRPC, with windows truncation cuts only what
  // exceeds max_tokens_per_input.
  void Extend(v1::EmbedOptions& options) const {
    if (options.has_extension() || !tei_.extension.has_value()) return;
    *options.mutable_extension() = ToMessage(*tei_.extension);
    const bool cut = options.truncate() != v1::EmbedOptions::NONE && tei_.extension->windows.has_value();
    if (cut && !options.has_max_tokens()) {
      options.set_max_tokens(static_cast<uint32_t>(context_.limits.max_tokens_per_input));
    }
  }

  absl::Status ReadOwn(JsonFields& fields, v1::EmbedOptions& options) {
    bool truncate = false, normalize = true;
    std::string direction = "Right";
    std::optional<uint32_t> dimensions;
    RETURN_IF_ERROR(fields.Take("truncate", truncate));
    RETURN_IF_ERROR(fields.Take("truncation_direction", direction));
    RETURN_IF_ERROR(fields.Take("prompt_name", prompt_name_));
    if (form_.takes_normalize) RETURN_IF_ERROR(fields.Take("normalize", normalize));
    if (form_.output == v1::EmbedOptions::ONE_VECTOR) RETURN_IF_ERROR(fields.TakeCount("dimensions", dimensions));
    // TEI takes both spellings, and its documents use both.
    const bool right = direction == "Right" || direction == "right";
    if (!right && direction != "Left" && direction != "left") {
      return WrongJsonType("truncation_direction", "\"Right\" or \"Left\"", absl::StrCat("\"", direction, "\""));
    }
    options.set_model(tei_.model.name());
    options.set_output(form_.output);
    if (truncate) options.set_truncate(right ? v1::EmbedOptions::END : v1::EmbedOptions::START);
    if (form_.takes_normalize) options.set_normalize(normalize);
    if (dimensions.has_value()) options.set_dimensions(*dimensions);
    options.set_force_dimensions(dimensions.has_value());
    return absl::OkStatus();
  }

  void Write(const Message&, const Message& message, std::string& text) const override {
    text += "[";
    const char* separator = "";
    for (const v1::EmbedResult& result : static_cast<const v1::EmbedResponse&>(message).results()) {
      if (IsTooLarge(text)) return;
      text += std::exchange(separator, ",");
      form_.append(result, static_cast<size_t>(max_bytes()), text);
    }
    text += "]";
  }

  Operation::Headers HeadersFor(const Message& message) const override {
    const auto& response = static_cast<const v1::EmbedResponse&>(message);
    using google::protobuf::util::TimeUtil;
    tei::v1::Metadata metadata;
    metadata.set_compute_chars(characters_);
    uint32_t tokens = 0;
    for (const v1::EmbedResult& result : response.results()) tokens += result.tokens();
    metadata.set_compute_tokens(tokens);
    metadata.set_tokenization_time_ns(TimeUtil::DurationToNanoseconds(response.timing().tokenization()));
    metadata.set_queue_time_ns(TimeUtil::DurationToNanoseconds(response.timing().queue()));
    metadata.set_inference_time_ns(TimeUtil::DurationToNanoseconds(response.timing().inference()));
    metadata.set_total_time_ns(TimeUtil::DurationToNanoseconds(response.timing().total()));
    return HeadersOf(tei_, metadata);
  }

  const LongembedContext& context_;
  const Form form_;
  std::string prompt_name_;
  uint32_t characters_ = 0;  // Code points of the inputs, without prompts.
};

void AppendOne(const v1::EmbedResult& result, size_t, std::string& text) { AppendVector(result.embeddings(0), text); }

void AppendAll(const v1::EmbedResult& result, size_t max_bytes, std::string& text) {
  text += "[";
  const char* separator = "";
  for (const v1::Embedding& embedding : result.embeddings()) {
    if (text.size() > max_bytes) return;
    text += std::exchange(separator, ",");
    AppendVector(embedding, text);
  }
  text += "]";
}

void AppendSparse(const v1::EmbedResult& result, size_t, std::string& text) {
  const v1::Embedding& weights = result.embeddings(0);
  text += "[";
  for (int i = 0; i < weights.values_size(); ++i) {
    absl::StrAppend(&text, i == 0 ? "" : ",", R"({"index":)", weights.indices().ids(i), R"(,"value":)");
    AppendJsonNumber(weights.values(i), text);
    text += "}";
  }
  text += "]";
}

class TeiTokens final : public TeiDialect {
 public:
  using TeiDialect::TeiDialect;

  // A token has five names in JSON, and eleven bytes or more on the wire.
  int64_t MostSerializedBytes(int64_t wire_bytes) const override { return 8 * wire_bytes; }

 private:
  absl::Status Read(const json& body, Message& message) override {
    auto& request = static_cast<v1::TokenizeRequest&>(message);
    JsonFields fields(body);
    v1::EmbedRequest texts;
    InputReader inputs("inputs", texts);
    std::string prompt_name;
    bool specials = true;
    const absl::Status read = inputs.Read(fields.Take("inputs"));
    is_single_ = inputs.is_single();
    RETURN_IF_ERROR(read);
    RETURN_IF_ERROR(fields.Take("add_special_tokens", specials));
    RETURN_IF_ERROR(fields.Take("prompt_name", prompt_name));
    RETURN_IF_ERROR(fields.CheckAllTaken());
    const absl::StatusOr<std::string> prompt = TeiPrompt(tei_, prompt_name);
    if (!prompt.ok()) return prompt.status();
    request.set_model(tei_.model.name());
    request.set_add_special_tokens(specials);
    for (int i = 0; i < texts.inputs_size(); ++i) {
      if (texts.inputs(i).has_token_ids())
        return WrongJsonType(absl::StrCat("inputs[", i, "]"), "a string", "an array");
      request.add_texts(*prompt + texts.inputs(i).text());
    }
    return absl::OkStatus();
  }

  void Write(const Message& request, const Message& message, std::string& text) const override {
    const auto& texts = static_cast<const v1::TokenizeRequest&>(request).texts();
    const auto& results = static_cast<const v1::TokenizeResponse&>(message).results();
    text += "[";
    for (int i = 0; i < results.size() && !IsTooLarge(text); ++i) {
      text += i == 0 ? "[" : ",[";
      AppendTokens(texts[i], results[i], text);
      text += "]";
    }
    text += "]";
  }

  // Appends the tokens. TEI's offsets count bytes.
  void AppendTokens(const std::string& source, const v1::TokenizedText& tokens, std::string& text) const {
    const CodePointIndex code_points(source);
    const char* separator = "";
    for (const v1::Token& token : tokens.tokens()) {
      if (IsTooLarge(text)) return;
      absl::StrAppend(&text, std::exchange(separator, ","), R"({"id":)", token.id(), R"(,"text":)");
      if (token.special()) {
        AppendJsonString(token.text(), text);
        text += R"(,"special":true,"start":null,"stop":null})";
        continue;
      }
      const size_t start = code_points.ByteOf(token.range().start()), stop = code_points.ByteOf(token.range().end());
      AppendJsonString(std::string_view(source).substr(start, stop - start), text);
      absl::StrAppend(&text, R"(,"special":false,"start":)", start, R"(,"stop":)", stop, "}");
    }
  }
};

class TeiDecoded final : public TeiDialect {
 public:
  using TeiDialect::TeiDialect;

 private:
  absl::Status Read(const json& body, Message& message) override {
    JsonFields fields(body);
    v1::EmbedRequest ids;
    bool skip = true;
    InputReader inputs("ids", ids);
    const absl::Status read = inputs.Read(fields.Take("ids"));
    is_single_ = inputs.is_single();
    RETURN_IF_ERROR(read);
    RETURN_IF_ERROR(fields.Take("skip_special_tokens", skip));
    RETURN_IF_ERROR(fields.CheckAllTaken());
    for (int i = 0; i < ids.inputs_size(); ++i) {
      if (ids.inputs(i).has_text()) return WrongJsonType("ids", "token ids", "a string");
      tei::v1::DecodeRequest& request = *static_cast<tei::v1::DecodeInputs&>(message).add_inputs();
      *request.mutable_ids() = ids.inputs(i).token_ids().ids();
      request.set_skip_special_tokens(skip);
    }
    return absl::OkStatus();
  }

  void Write(const Message&, const Message& message, std::string& text) const override {
    text += "[";
    const char* separator = "";
    for (const tei::v1::DecodeResponse& result : static_cast<const tei::v1::DecodedInputs&>(message).results()) {
      if (IsTooLarge(text)) return;
      text += std::exchange(separator, ",");
      AppendJsonString(result.text(), text);
    }
    text += "]";
  }
};

class TeiInformation final : public TeiDialect {
 public:
  using TeiDialect::TeiDialect;

 private:
  absl::Status Read(const json&, Message&) override { return absl::OkStatus(); }
  // The answer is a page of almost fixed size.
  int64_t MostSerializedBytes(int64_t wire_bytes) const override { return 1024 + 2 * wire_bytes; }

  void Write(const Message&, const Message& message, std::string& text) const override {
    const auto& info = static_cast<const tei::v1::InfoResponse&>(message);
    const Pooling pooling = tei_.model.model().manifest.pooling;
    const char* const of_vectors = pooling == Pooling::kCls ? "cls" : pooling == Pooling::kLast ? "last_token" : "mean";
    const char* const name = IsSplade(tei_) ? "splade" : of_vectors;
    const json information{{"model_id", info.model_id()},
                           {"model_sha", nullptr},
                           {"model_dtype", info.model_dtype()},
                           {"model_type", {{"embedding", {{"pooling", name}}}}},
                           {"max_concurrent_requests", nullptr},
                           {"max_input_length", info.max_input_length()},
                           {"max_batch_tokens", info.max_batch_tokens()},
                           {"max_batch_requests", info.max_batch_requests()},
                           {"max_client_batch_size", info.max_client_batch_size()},
                           {"auto_truncate", false},
                           {"tokenization_workers", info.tokenization_workers()},
                           {"version", info.version()},
                           {"sha", nullptr},
                           {"docker_label", nullptr}};
    text += JsonText(information);
  }
};

}  // namespace

std::vector<Route> TeiRoutes(const LongembedContext& context, const TeiContext& tei) {
  const auto vectors = [&](const char* path, ApiMethod method, const TeiVectors::Form& form) -> Route {
    return {.path = path, .method = std::move(method), .dialect = [&context, &tei, form](const std::string&) {
              return std::make_unique<TeiVectors>(context, tei, form);
            }};
  };
  const auto embed = [&](const char* path) {
    return vectors(path, Named("tei.http.Embed", EmbedBlankTooMethod(context)),
                   {.takes_normalize = true, .append = &AppendOne});
  };
  const auto sparse = [&](const char* path) {
    return vectors(path, Named("tei.http.EmbedSparse", EmbedBlankTooMethod(context)),
                   {.output = v1::EmbedOptions::SPARSE, .append = &AppendSparse});
  };
  const auto usual = [&](const char* path) { return IsSplade(tei) ? sparse(path) : embed(path); };
  const auto other = [&tei]<typename Kind>(const char* path, ApiMethod method, bool is_get) -> Route {
    return {.is_get = is_get, .path = path, .method = std::move(method), .dialect = [&tei](const std::string&) {
              return std::make_unique<Kind>(tei);
            }};
  };
  return {
      embed("/embed"),
      usual("/"),             // For Hugging Face's InferenceClient, if it is given the server's address alone.
      usual("/invocations"),  // For SageMaker.
      vectors("/embed_all", Named("tei.http.EmbedAll", EmbedEveryTokenMethod(context)), {.append = &AppendAll}),
      sparse("/embed_sparse"),
      other.operator()<TeiTokens>("/tokenize", Named("tei.http.Tokenize", TokenizeMethod(context)), false),
      other.operator()<TeiDecoded>("/decode", TeiDecodeInputsMethod("tei.http.Decode", tei), false),
      other.operator()<TeiInformation>("/info", Named("tei.http.Info", TeiInfoMethod(tei)), true),
  };
}

}  // namespace longembed
