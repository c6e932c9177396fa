#include "server/api/tei/tei_service.h"

#include <optional>
#include <string>
#include <utility>

#include "server/api/tei/tei_settings.h"

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

absl::StatusOr<std::unique_ptr<TeiServices>> TeiServices::Make(const TeiConfig& config, const ApiContext& api,
                                                               const Profiles& profiles, const HostContext& host) {
  absl::StatusOr<std::optional<TeiSettings>> resolved =
      ResolveTei(config, api.models.manifests(), profiles, api.limits);
  if (!resolved.ok()) return resolved.status();
  if (!resolved->has_value()) return nullptr;
  TeiSettings& settings = **resolved;
  TeiContext context{{api},
                     *api.models.models()[settings.index],
                     std::move(settings.prompt),
                     std::move(settings.extension),
                     LONGEMBED_VERSION};
  return std::unique_ptr<TeiServices>(new TeiServices(std::move(context), host));
}

Services TeiServices::services() {
  return {{tei::v1::Info::service_full_name(), &info_},
          {tei::v1::Embed::service_full_name(), &embed_},
          {tei::v1::Tokenize::service_full_name(), &tokenize_},
          {tei::v1::Predict::service_full_name(), &predict_},
          {tei::v1::Rerank::service_full_name(), &rerank_}};
}

std::vector<std::string> TeiServices::names() {
  return {tei::v1::Info::service_full_name(), tei::v1::Embed::service_full_name(),
          tei::v1::Tokenize::service_full_name()};
}

}  // namespace longembed
