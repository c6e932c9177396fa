// tei.v1, the gRPC API of Hugging Face text-embeddings-inference, so that its clients can be pointed here: Info, Embed
// and Tokenize answer; Predict and Rerank say that they are not offered.
#ifndef LONGEMBED_SERVER_RPC_TEI_SERVICE_H_
#define LONGEMBED_SERVER_RPC_TEI_SERVICE_H_

#include <string>

#include "absl/status/status.h"
#include "server/core/served_model.h"
#include "server/rpc/embedding_service.h"
#include "tei/v1/tei.grpc.pb.h"

namespace longembed {

// What every handler needs. All of it outlives the services.
struct TeiContext {
  const ServiceContext& service;
  ServedModel& model;
  std::string default_prompt;  // Put before inputs of requests that name no prompt.
  std::string version;
};

// TEI's map: what its backend or its tokenizer fails at is FAILED_PRECONDITION; the rest keeps its code.
absl::Status ToTeiStatus(const absl::Status& status);

using RawTeiInfo = tei::v1::Info::WithRawCallbackMethod_Info<tei::v1::Info::Service>;

class TeiInfoService final : public RawTeiInfo {
 public:
  explicit TeiInfoService(const TeiContext& context) : context_(context) {}
  grpc::ServerUnaryReactor* Info(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                 grpc::ByteBuffer* response) override;

 private:
  const TeiContext& context_;
};

using RawTeiEmbed = tei::v1::Embed::WithRawCallbackMethod_Embed<
    tei::v1::Embed::WithRawCallbackMethod_EmbedStream<tei::v1::Embed::WithRawCallbackMethod_EmbedAll<
        tei::v1::Embed::WithRawCallbackMethod_EmbedAllStream<tei::v1::Embed::WithRawCallbackMethod_EmbedSparse<
            tei::v1::Embed::WithRawCallbackMethod_EmbedSparseStream<tei::v1::Embed::Service>>>>>>;

class TeiEmbedService final : public RawTeiEmbed {
 public:
  explicit TeiEmbedService(const TeiContext& context) : context_(context) {}
  using Stream = grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>;
  grpc::ServerUnaryReactor* Embed(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                  grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* EmbedAll(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* EmbedSparse(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                        grpc::ByteBuffer* response) override;
  Stream* EmbedStream(grpc::CallbackServerContext* context) override;
  Stream* EmbedAllStream(grpc::CallbackServerContext* context) override;
  Stream* EmbedSparseStream(grpc::CallbackServerContext* context) override;

 private:
  const TeiContext& context_;
};

using RawTeiTokenize = tei::v1::Tokenize::WithRawCallbackMethod_Tokenize<
    tei::v1::Tokenize::WithRawCallbackMethod_TokenizeStream<tei::v1::Tokenize::WithRawCallbackMethod_Decode<
        tei::v1::Tokenize::WithRawCallbackMethod_DecodeStream<tei::v1::Tokenize::Service>>>>;

class TeiTokenizeService final : public RawTeiTokenize {
 public:
  explicit TeiTokenizeService(const TeiContext& context) : context_(context) {}
  using Stream = grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Decode(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                   grpc::ByteBuffer* response) override;
  Stream* TokenizeStream(grpc::CallbackServerContext* context) override;
  Stream* DecodeStream(grpc::CallbackServerContext* context) override;

 private:
  const TeiContext& context_;
};

// The two services that are not offered.
using RawTeiPredict = tei::v1::Predict::WithRawCallbackMethod_Predict<
    tei::v1::Predict::WithRawCallbackMethod_PredictPair<tei::v1::Predict::WithRawCallbackMethod_PredictStream<
        tei::v1::Predict::WithRawCallbackMethod_PredictPairStream<tei::v1::Predict::Service>>>>;

class TeiPredictService final : public RawTeiPredict {
 public:
  explicit TeiPredictService(const TeiContext& context) : context_(context) {}
  using Stream = grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>;
  grpc::ServerUnaryReactor* Predict(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                    grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* PredictPair(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                        grpc::ByteBuffer* response) override;
  Stream* PredictStream(grpc::CallbackServerContext* context) override;
  Stream* PredictPairStream(grpc::CallbackServerContext* context) override;

 private:
  const TeiContext& context_;
};

using RawTeiRerank = tei::v1::Rerank::WithRawCallbackMethod_Rerank<
    tei::v1::Rerank::WithRawCallbackMethod_RerankStream<tei::v1::Rerank::Service>>;

class TeiRerankService final : public RawTeiRerank {
 public:
  explicit TeiRerankService(const TeiContext& context) : context_(context) {}
  using Stream = grpc::ServerReadReactor<grpc::ByteBuffer>;
  grpc::ServerUnaryReactor* Rerank(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                   grpc::ByteBuffer* response) override;
  Stream* RerankStream(grpc::CallbackServerContext* context, grpc::ByteBuffer* response) override;

 private:
  const TeiContext& context_;
};

// All of them, over one context.
struct TeiServices {
  explicit TeiServices(TeiContext tei_context)
      : context(std::move(tei_context)),
        info(context),
        embed(context),
        tokenize(context),
        predict(context),
        rerank(context) {}

  const TeiContext context;
  TeiInfoService info;
  TeiEmbedService embed;
  TeiTokenizeService tokenize;
  TeiPredictService predict;
  TeiRerankService rerank;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_TEI_SERVICE_H_
