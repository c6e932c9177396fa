#include "server/api/http/openai.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"
#include "server/api/http/embed_dialect.h"
#include "server/errors/errors.h"
#include "server/http/json.h"
#include "system/return_if_error.h"

namespace longembed {
namespace {

using google::protobuf::Message;
using nlohmann::json;

const char* TypeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnauthenticated:
      return "authentication_error";
    case absl::StatusCode::kResourceExhausted:
      return "rate_limit_error";
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
      return "invalid_request_error";
    default:
      return "server_error";
  }
}

class OpenAiDialect : public JsonDialect {
 public:
  Error Describe(const absl::Status& status) const override {
    json error = ErrorObject(InDialect(status, "input", is_single_), {.reason = "code", .field = "param"});
    error["type"] = TypeOf(status);
    return {HttpStatusOf(status), JsonText(json{{"error", std::move(error)}})};
  }

 protected:
  absl::Status Read(const json& body, Message&) override { return JsonFields(body).CheckAllTaken(); }
  void Write(const Message&, const Message&, std::string& text) const override { text += "{}"; }

  bool is_single_ = false;
};

class Embeddings final : public OpenAiDialect {
 public:
  Embeddings(const LongembedContext& context, const HttpConfig& config) : context_(context), config_(config) {}

 private:
  absl::Status Read(const json& body, Message& message) override {
    auto& request = static_cast<v1::EmbedRequest&>(message);
    v1::EmbedOptions& options = *request.mutable_options();
    JsonFields fields(body);
    RETURN_IF_ERROR(ReadOwn(fields, request));
    RETURN_IF_ERROR(fields.TakeOptions({"extension", "prompt_name", "prompt", "input_type", "truncate", "max_tokens",
                                        "normalize", "force_dimensions", "priority"},
                                       options));
    RETURN_IF_ERROR(fields.CheckAllTaken());
    RETURN_IF_ERROR(CheckPrompt(request));
    const bool prompted = options.prompting_case() != v1::EmbedOptions::PROMPTING_NOT_SET;
    if (!prompted) RETURN_IF_ERROR(SetConfiguredPrompt(options));
    options.set_output(v1::EmbedOptions::ONE_VECTOR);
    return CheckTokenIds(request, context_.models, context_.profiles);
  }

  // Sets the config's prompt. It concerns every model of the server, but not every model has prompts.
  absl::Status SetConfiguredPrompt(v1::EmbedOptions& options) const {
    if (config_.openai_prompt.empty()) return absl::OkStatus();
    const absl::StatusOr<ModelChoice> choice =
        ResolveModel(context_.models, context_.profiles, options.model(), "options.model");
    if (!choice.ok()) return choice.status();
    if (!choice->model->model().manifest.prompts.empty()) options.set_prompt_name(config_.openai_prompt);
    return absl::OkStatus();
  }

  // Checks the prompt that the request itself names.
  static absl::Status CheckPrompt(const v1::EmbedRequest& request) {
    const v1::EmbedOptions& options = request.options();
    if (options.has_prompt_name()) return CheckPromptHasTexts(request, "prompt_name");
    if (options.has_input_type()) return CheckPromptHasTexts(request, "input_type");
    return options.prompt().empty() ? absl::OkStatus() : CheckPromptHasTexts(request, "prompt");
  }

  // Reads OpenAI's own fields.
  absl::Status ReadOwn(JsonFields& fields, v1::EmbedRequest& request) {
    std::string form = "float", user;
    bool drop = false;
    std::optional<uint32_t> dimensions;
    InputReader inputs("input", request);
    const absl::Status read = inputs.Read(fields.Take("input"));
    is_single_ = inputs.is_single();
    RETURN_IF_ERROR(read);
    RETURN_IF_ERROR(fields.Take("model", model_));
    RETURN_IF_ERROR(fields.Take("encoding_format", form));
    RETURN_IF_ERROR(fields.TakeCount("dimensions", dimensions));
    RETURN_IF_ERROR(fields.Take("user", user));         // For OpenAI's abuse detection; ignored.
    RETURN_IF_ERROR(fields.Take("drop_params", drop));  // For litellm, which leaves it in the request; ignored.
    if (form != "float" && form != "base64") {
      return WrongJsonType("encoding_format", "\"float\" or \"base64\"", absl::StrCat("\"", form, "\""));
    }
    is_base64_ = form == "base64";
    request.mutable_options()->set_model(model_);
    if (dimensions.has_value()) request.mutable_options()->set_dimensions(*dimensions);
    return absl::OkStatus();
  }

  void Write(const Message&, const Message& message, std::string& text) const override {
    const auto& response = static_cast<const v1::EmbedResponse&>(message);
    uint64_t tokens = 0;
    text += R"({"object":"list","data":[)";
    for (int i = 0; i < response.results_size() && !IsTooLarge(text); ++i) {
      const v1::EmbedResult& result = response.results(i);
      tokens += result.tokens();
      absl::StrAppend(&text, i == 0 ? "" : ",", R"({"object":"embedding","index":)", i, R"(,"embedding":)");
      (is_base64_ ? AppendBase64 : AppendVector)(result.embeddings(0), text);
      text += "}";
    }
    text += R"(],"model":)";
    AppendJsonString(model_.empty() ? response.model() : model_, text);
    absl::StrAppend(&text, R"(,"usage":{"prompt_tokens":)", tokens, R"(,"total_tokens":)", tokens, R"(},"recipe":")",
                    response.recipe(), "\"}");
  }

  const LongembedContext& context_;
  const HttpConfig& config_;
  std::string model_;  // The name that the request uses.
  bool is_base64_ = false;
};

void WriteModel(const std::string& name, std::string& text) {
  text += R"({"id":)";
  AppendJsonString(name, text);
  text += R"(,"object":"model","created":0,"owned_by":"longembed"})";
}

// Lists every model and its aliases.
class ModelList final : public OpenAiDialect {
  void Write(const Message&, const Message& message, std::string& text) const override {
    text += R"({"object":"list","data":[)";
    const char* separator = "";
    for (const v1::Model& model : static_cast<const v1::ListModelsResponse&>(message).models()) {
      text += std::exchange(separator, ",");
      WriteModel(model.name(), text);
      for (const std::string& alias : model.aliases()) {
        text += ",";
        WriteModel(alias, text);
      }
    }
    text += "]}";
  }
};

class OneModel final : public OpenAiDialect {
 public:
  explicit OneModel(std::string name) : name_(std::move(name)) {}

 private:
  absl::Status Read(const json&, Message& message) override {
    static_cast<v1::GetModelRequest&>(message).set_model(name_);
    return absl::OkStatus();
  }
  void Write(const Message&, const Message&, std::string& text) const override { WriteModel(name_, text); }

  const std::string name_;
};

}  // namespace

std::vector<Route> OpenAiRoutes(const LongembedContext& context, const HttpConfig& config) {
  std::vector<Route> routes;
  // The second form is Infinity's and llama.cpp's, and is what clients call if their base URL lacks "/v1".
  for (const std::string version : {"/v1", ""}) {
    routes.push_back({.path = version + "/embeddings",
                      .method = Named("openai.Embeddings", EmbedMethod(context)),
                      .dialect = [&](const std::string&) { return std::make_unique<Embeddings>(context, config); }});
    routes.push_back({.is_get = true,
                      .path = version + "/models",
                      .method = Named("openai.ListModels", ListModelsMethod(context)),
                      .dialect = [](const std::string&) { return std::make_unique<ModelList>(); }});
    routes.push_back({.is_get = true,
                      .path = version + "/models/",
                      .method = Named("openai.GetModel", GetModelMethod(context)),
                      .dialect = [](const std::string& name) { return std::make_unique<OneModel>(name); }});
  }
  return routes;
}

std::unique_ptr<Dialect> OpenAiErrors() { return std::make_unique<OpenAiDialect>(); }

}  // namespace longembed
