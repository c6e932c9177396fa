// longembed.v1.EmbeddingService over gRPC's callback API.
#ifndef LONGEMBED_SERVER_RPC_EMBEDDING_SERVICE_H_
#define LONGEMBED_SERVER_RPC_EMBEDDING_SERVICE_H_

#include "longembed/v1/embedding.grpc.pb.h"
#include "server/rpc/service_context.h"

namespace longembed {

// The methods take raw bytes, so that malformed requests get an answer with words (wire.h).
using RawEmbeddingService = v1::EmbeddingService::WithRawCallbackMethod_Embed<
    v1::EmbeddingService::WithRawCallbackMethod_EmbedStream<v1::EmbeddingService::WithRawCallbackMethod_Explain<
        v1::EmbeddingService::WithRawCallbackMethod_Tokenize<v1::EmbeddingService::WithRawCallbackMethod_ListModels<
            v1::EmbeddingService::WithRawCallbackMethod_GetModel<v1::EmbeddingService::Service>>>>>>;

// Thread-safe, as gRPC asks of a service.
class EmbeddingServiceImpl final : public RawEmbeddingService {
 public:
  // `context` must outlive it.
  explicit EmbeddingServiceImpl(const ServiceContext& context) : context_(context) {}

  grpc::ServerUnaryReactor* Embed(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                  grpc::ByteBuffer* response) override;
  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* EmbedStream(
      grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* Explain(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                    grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;

 private:
  const ServiceContext& context_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_EMBEDDING_SERVICE_H_
