// tei.v1, the gRPC API of Hugging Face text-embeddings-inference, so that its clients can use this server. Info, Embed
// and Tokenize answer; Predict and Rerank return UNIMPLEMENTED.
#ifndef LONGEMBED_SERVER_API_TEI_TEI_SERVICE_H_
#define LONGEMBED_SERVER_API_TEI_TEI_SERVICE_H_

#include <memory>

#include "absl/status/statusor.h"
#include "server/api/tei/operations.h"
#include "server/config/config.h"
#include "server/core/profiles.h"
#include "server/rpc/grpc_server.h"
#include "server/rpc/reactors.h"
#include "tei/v1/tei.grpc.pb.h"

namespace longembed {

using RawTeiInfo = tei::v1::Info::WithRawCallbackMethod_Info<tei::v1::Info::Service>;

class TeiInfoService final : public RawTeiInfo {
 public:
  TeiInfoService(const TeiContext& context, const HostContext& host) : context_(context), host_(host) {}
  grpc::ServerUnaryReactor* Info(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                 grpc::ByteBuffer* response) override;

 private:
  const TeiContext& context_;
  const HostContext& host_;
};

using RawTeiEmbed = tei::v1::Embed::WithRawCallbackMethod_Embed<
    tei::v1::Embed::WithRawCallbackMethod_EmbedStream<tei::v1::Embed::WithRawCallbackMethod_EmbedAll<
        tei::v1::Embed::WithRawCallbackMethod_EmbedAllStream<tei::v1::Embed::WithRawCallbackMethod_EmbedSparse<
            tei::v1::Embed::WithRawCallbackMethod_EmbedSparseStream<tei::v1::Embed::Service>>>>>>;

class TeiEmbedService final : public RawTeiEmbed {
 public:
  TeiEmbedService(const TeiContext& context, const HostContext& host) : context_(context), host_(host) {}
  using Stream = RawStream;
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
  const HostContext& host_;
};

using RawTeiTokenize = tei::v1::Tokenize::WithRawCallbackMethod_Tokenize<
    tei::v1::Tokenize::WithRawCallbackMethod_TokenizeStream<tei::v1::Tokenize::WithRawCallbackMethod_Decode<
        tei::v1::Tokenize::WithRawCallbackMethod_DecodeStream<tei::v1::Tokenize::Service>>>>;

class TeiTokenizeService final : public RawTeiTokenize {
 public:
  TeiTokenizeService(const TeiContext& context, const HostContext& host) : context_(context), host_(host) {}
  using Stream = RawStream;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Decode(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                   grpc::ByteBuffer* response) override;
  Stream* TokenizeStream(grpc::CallbackServerContext* context) override;
  Stream* DecodeStream(grpc::CallbackServerContext* context) override;

 private:
  const TeiContext& context_;
  const HostContext& host_;
};

// Predict and Rerank are not offered.
using RawTeiPredict = tei::v1::Predict::WithRawCallbackMethod_Predict<
    tei::v1::Predict::WithRawCallbackMethod_PredictPair<tei::v1::Predict::WithRawCallbackMethod_PredictStream<
        tei::v1::Predict::WithRawCallbackMethod_PredictPairStream<tei::v1::Predict::Service>>>>;

class TeiPredictService final : public RawTeiPredict {
 public:
  TeiPredictService(const TeiContext& context, const HostContext& host) : context_(context), host_(host) {}
  using Stream = RawStream;
  grpc::ServerUnaryReactor* Predict(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                    grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* PredictPair(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                        grpc::ByteBuffer* response) override;
  Stream* PredictStream(grpc::CallbackServerContext* context) override;
  Stream* PredictPairStream(grpc::CallbackServerContext* context) override;

 private:
  const TeiContext& context_;
  const HostContext& host_;
};

using RawTeiRerank = tei::v1::Rerank::WithRawCallbackMethod_Rerank<
    tei::v1::Rerank::WithRawCallbackMethod_RerankStream<tei::v1::Rerank::Service>>;

class TeiRerankService final : public RawTeiRerank {
 public:
  TeiRerankService(const TeiContext& context, const HostContext& host) : context_(context), host_(host) {}
  using Stream = grpc::ServerReadReactor<grpc::ByteBuffer>;
  grpc::ServerUnaryReactor* Rerank(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                   grpc::ByteBuffer* response) override;
  Stream* RerankStream(grpc::CallbackServerContext* context, grpc::ByteBuffer* response) override;

 private:
  const TeiContext& context_;
  const HostContext& host_;
};

// All services of tei.v1, over one model.
class TeiServices {
 public:
  // Creates the services. Returns null if tei.v1 is not offered, because there are several models and the config names
  // none. All arguments must outlive them. Errors about `config`: NOT_FOUND, INVALID_ARGUMENT.
  static absl::StatusOr<std::unique_ptr<TeiServices>> Make(const TeiConfig& config, const ApiContext& api,
                                                           const Profiles& profiles, const HostContext& host);

  Services services();
  const TeiContext& context() const { return context_; }
  // Returns the names of the services that report health.
  static std::vector<std::string> names();

 private:
  TeiServices(TeiContext context, const HostContext& host)
      : context_(std::move(context)),
        info_(context_, host),
        embed_(context_, host),
        tokenize_(context_, host),
        predict_(context_, host),
        rerank_(context_, host) {}

  const TeiContext context_;
  TeiInfoService info_;
  TeiEmbedService embed_;
  TeiTokenizeService tokenize_;
  TeiPredictService predict_;
  TeiRerankService rerank_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_API_TEI_TEI_SERVICE_H_
