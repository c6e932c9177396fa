// longembed.v1.EmbeddingService over gRPC's callback API.
#ifndef LONGEMBED_SERVER_API_LONGEMBED_EMBEDDING_SERVICE_H_
#define LONGEMBED_SERVER_API_LONGEMBED_EMBEDDING_SERVICE_H_

#include "longembed/v1/embedding.grpc.pb.h"
#include "server/api/longembed/operations.h"
#include "server/rpc/reactors.h"

namespace longembed {

// The methods take raw bytes, so that malformed requests get a readable error (wire.h).
using RawEmbeddingService = v1::EmbeddingService::WithRawCallbackMethod_Embed<
    v1::EmbeddingService::WithRawCallbackMethod_EmbedStream<v1::EmbeddingService::WithRawCallbackMethod_Explain<
        v1::EmbeddingService::WithRawCallbackMethod_Tokenize<v1::EmbeddingService::WithRawCallbackMethod_ListModels<
            v1::EmbeddingService::WithRawCallbackMethod_GetModel<v1::EmbeddingService::Service>>>>>>;

// Runs every method under a host. Thread-safe, as gRPC requires.
class EmbeddingServiceImpl final : public RawEmbeddingService {
 public:
  // Both arguments must outlive the service.
  EmbeddingServiceImpl(const LongembedContext& context, const HostContext& host);

  grpc::ServerUnaryReactor* Embed(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                  grpc::ByteBuffer* response) override;
  RawStream* EmbedStream(grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* Explain(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                    grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* GetModel(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;

 private:
  const LongembedContext& context_;
  const HostContext& host_;
  const ApiMethod embed_;
  const ApiMethod explain_;
  const ApiMethod tokenize_;
  const ApiMethod list_models_;
  const ApiMethod get_model_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_API_LONGEMBED_EMBEDDING_SERVICE_H_
