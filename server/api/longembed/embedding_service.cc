#include "server/api/longembed/embedding_service.h"

#include "server/api/longembed/embed_stream.h"

namespace longembed {

EmbeddingServiceImpl::EmbeddingServiceImpl(const LongembedContext& context, const HostContext& host)
    : context_(context),
      host_(host),
      embed_(EmbedMethod(context)),
      explain_(ExplainMethod(context)),
      tokenize_(TokenizeMethod(context)),
      list_models_(ListModelsMethod(context)),
      get_model_(GetModelMethod(context)) {}

grpc::ServerUnaryReactor* EmbeddingServiceImpl::Embed(grpc::CallbackServerContext* context,
                                                      const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return ServeUnary(embed_, host_, context, request, response);
}

RawStream* EmbeddingServiceImpl::EmbedStream(grpc::CallbackServerContext* context) {
  const EmbedStreamSetup stream = MakeEmbedStream(context_);
  return ServeStream(stream.method, stream.options, host_, context);
}

grpc::ServerUnaryReactor* EmbeddingServiceImpl::Explain(grpc::CallbackServerContext* context,
                                                        const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return ServeUnary(explain_, host_, context, request, response);
}

grpc::ServerUnaryReactor* EmbeddingServiceImpl::Tokenize(grpc::CallbackServerContext* context,
                                                         const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return ServeUnary(tokenize_, host_, context, request, response);
}

grpc::ServerUnaryReactor* EmbeddingServiceImpl::ListModels(grpc::CallbackServerContext* context,
                                                           const grpc::ByteBuffer* request,
                                                           grpc::ByteBuffer* response) {
  return ServeUnary(list_models_, host_, context, request, response);
}

grpc::ServerUnaryReactor* EmbeddingServiceImpl::GetModel(grpc::CallbackServerContext* context,
                                                         const grpc::ByteBuffer* request, grpc::ByteBuffer* response) {
  return ServeUnary(get_model_, host_, context, request, response);
}

}  // namespace longembed
