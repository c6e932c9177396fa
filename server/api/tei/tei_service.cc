#include "server/api/tei/tei_service.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"
#include "model/text/prompt.h"
#include "server/core/model_choice.h"

namespace longembed {
namespace {

constexpr char kNoClassifier[] = "classifier", kNoReranker[] = "reranker";

// At most 64 messages of one stream are processed at a time: a few batches.
StreamOptions StreamOptionsOf(const TeiContext& context) {
  return {.max_messages = 64, .max_bytes = context.limits.max_request_bytes};
}

}  // namespace

grpc::ServerUnaryReactor* TeiInfoService::Info(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                               grpc::ByteBuffer* response) {
  return ServeUnary(TeiInfoMethod(context_), host_, context, request, response);
}

grpc::ServerUnaryReactor* TeiEmbedService::Embed(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                                 grpc::ByteBuffer* response) {
  return ServeUnary(TeiEmbedMethod("tei.Embed", context_), host_, context, request, response);
}

grpc::ServerUnaryReactor* TeiEmbedService::EmbedAll(grpc::CallbackServerContext* context,
                                                    const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return ServeUnary(TeiEmbedAllMethod("tei.EmbedAll", context_), host_, context, request, response);
}

grpc::ServerUnaryReactor* TeiEmbedService::EmbedSparse(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return ServeUnary(TeiEmbedSparseMethod("tei.EmbedSparse", context_), host_, context, request, response);
}

TeiEmbedService::Stream* TeiEmbedService::EmbedStream(grpc::CallbackServerContext* context) {
  return ServeStream(TeiEmbedMethod("tei.EmbedStream", context_), StreamOptionsOf(context_), host_, context);
}

TeiEmbedService::Stream* TeiEmbedService::EmbedAllStream(grpc::CallbackServerContext* context) {
  return ServeStream(TeiEmbedAllMethod("tei.EmbedAllStream", context_), StreamOptionsOf(context_), host_, context);
}

TeiEmbedService::Stream* TeiEmbedService::EmbedSparseStream(grpc::CallbackServerContext* context) {
  return ServeStream(TeiEmbedSparseMethod("tei.EmbedSparseStream", context_), StreamOptionsOf(context_), host_,
                     context);
}

grpc::ServerUnaryReactor* TeiTokenizeService::Tokenize(grpc::CallbackServerContext* context,
                                                       const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return ServeUnary(TeiTokenizeMethod("tei.Tokenize", context_), host_, context, request, response);
}

grpc::ServerUnaryReactor* TeiTokenizeService::Decode(grpc::CallbackServerContext* context,
                                                     const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return ServeUnary(TeiDecodeMethod("tei.Decode", context_), host_, context, request, response);
}

TeiTokenizeService::Stream* TeiTokenizeService::TokenizeStream(grpc::CallbackServerContext* context) {
  return ServeStream(TeiTokenizeMethod("tei.TokenizeStream", context_), StreamOptionsOf(context_), host_, context);
}

TeiTokenizeService::Stream* TeiTokenizeService::DecodeStream(grpc::CallbackServerContext* context) {
  return ServeStream(TeiDecodeMethod("tei.DecodeStream", context_), StreamOptionsOf(context_), host_, context);
}

grpc::ServerUnaryReactor* TeiPredictService::Predict(grpc::CallbackServerContext* context,
                                                     const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return ServeUnary(TeiUnsupported("tei.Predict", kNoClassifier), host_, context, request, response);
}

grpc::ServerUnaryReactor* TeiPredictService::PredictPair(grpc::CallbackServerContext* context,
                                                         const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return ServeUnary(TeiUnsupported("tei.PredictPair", kNoClassifier), host_, context, request, response);
}

TeiPredictService::Stream* TeiPredictService::PredictStream(grpc::CallbackServerContext* context) {
  return ServeStream(TeiUnsupported("tei.PredictStream", kNoClassifier), StreamOptionsOf(context_), host_, context);
}

TeiPredictService::Stream* TeiPredictService::PredictPairStream(grpc::CallbackServerContext* context) {
  return ServeStream(TeiUnsupported("tei.PredictPairStream", kNoClassifier), StreamOptionsOf(context_), host_, context);
}

grpc::ServerUnaryReactor* TeiRerankService::Rerank(grpc::CallbackServerContext* context,
                                                   const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return ServeUnary(TeiUnsupported("tei.Rerank", kNoReranker), host_, context, request, response);
}

TeiRerankService::Stream* TeiRerankService::RerankStream(grpc::CallbackServerContext* context, grpc::ByteBuffer*) {
  return RefuseReads(TeiUnsupported("tei.RerankStream", kNoReranker), host_, context);
}

namespace {

// Returns a key that is set though it has no meaning where tei.v1 is not served; empty if there is none.
std::string KeyWithoutModel(const TeiConfig& config) {
  if (!config.default_prompt.empty()) return "tei.default_prompt";
  if (!config.profile.empty()) return "tei.profile";
  return config.has_extension() ? "tei.extension" : "";
}

// Returns the extension that the config names, and sets `key` to the key that names it.
absl::StatusOr<Extension> ReadExtension(const TeiConfig& config, const ModelChoice& choice, const Profiles& profiles,
                                        std::string& key) {
  const bool has_key = !config.profile.empty() || config.has_extension();
  if (choice.extension != nullptr) {
    key = "tei.model";
    if (!has_key) return *choice.extension;
    return absl::InvalidArgumentError(
        absl::StrCat("tei.model names the profile \"", choice.profile, "\"; leave out tei.profile and tei.extension"));
  }
  key = config.profile.empty() ? "tei.extension" : "tei.profile";
  if (config.profile.empty()) return ParseExtensionOf(key, config.extension);
  const auto found = profiles.find(config.profile);
  if (found != profiles.end()) return found->second;
  return absl::InvalidArgumentError(absl::StrCat("tei.profile is \"", config.profile, "\", which is not a profile"));
}

// Returns the extension for long texts; nullopt if the config has none. Errors name the key.
absl::StatusOr<std::optional<Extension>> ExtensionOf(const TeiConfig& config, const ModelChoice& choice,
                                                     const Profiles& profiles, const LimitsConfig& limits) {
  std::string key;
  absl::StatusOr<Extension> extension = ReadExtension(config, choice, profiles, key);
  if (!extension.ok()) return extension.status();
  if (key == "tei.extension" && !config.has_extension()) return std::nullopt;
  const ModelManifest& manifest = choice.model->model().manifest;
  if (const absl::Status status = CheckExtension(manifest, *extension); !status.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(key, " does not fit the model ", choice.model->name(), ": ", std::string(status.message())));
  }
  if (extension->windows.has_value() && extension->windows->vectors.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat(key, " has windows.vectors, which is ", *extension->windows->vectors,
                                                   ", and tei.v1 gives one vector of a text; leave it out"));
  }
  FitWindows(manifest, limits.max_tokens_per_sequence, *extension);
  return *std::move(extension);
}

}  // namespace

absl::StatusOr<std::unique_ptr<TeiServices>> TeiServices::Make(const TeiConfig& config, const ApiContext& api,
                                                               const Profiles& profiles, const HostContext& host) {
  if (config.model.empty() && api.models.models().size() != 1) {
    const std::string key = KeyWithoutModel(config);
    if (key.empty()) return nullptr;
    return absl::InvalidArgumentError(absl::StrCat(key, " is set, but with several models tei.model has to name one"));
  }
  const absl::StatusOr<ModelChoice> choice = ResolveModel(api.models, profiles, config.model, "tei.model");
  if (!choice.ok()) return choice.status();
  ServedModel& model = *choice->model;
  absl::StatusOr<std::optional<Extension>> extension = ExtensionOf(config, *choice, profiles, api.limits);
  if (!extension.ok()) return extension.status();
  const PromptChoice prompt_choice =
      config.default_prompt.empty() ? PromptChoice() : PromptChoice(PromptName{config.default_prompt});
  absl::StatusOr<std::string> prompt = ResolvePrompt(model.model().manifest, prompt_choice);
  if (!prompt.ok()) return AtField(prompt.status(), "tei.default_prompt");
  TeiContext context{{api}, model, *std::move(prompt), *std::move(extension), LONGEMBED_VERSION};
  return std::unique_ptr<TeiServices>(new TeiServices(std::move(context), host));
}

std::vector<std::string> TeiServices::names() {
  return {tei::v1::Info::service_full_name(), tei::v1::Embed::service_full_name(),
          tei::v1::Tokenize::service_full_name()};
}

}  // namespace longembed
