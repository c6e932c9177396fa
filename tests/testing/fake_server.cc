#include "tests/testing/fake_server.h"

#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "model/encoder/sparse_encoder.h"
#include "tests/testing/fake_sparse_head.h"

namespace longembed {

FakeServer::FakeServer(Options options)
    : ledger_(options.max_pending_bytes.value_or(4 << 20)), options_(std::move(options)) {
  auto fake = std::make_unique<FakeEncoder>();
  encoder_ = fake.get();
  std::unique_ptr<Encoder> encoder = std::move(fake);
  if (options_.manifest.has_value() && options_.manifest->sparse_head != SparseHeadKind::kNone) {
    encoder = WithSparseHead(std::move(encoder), std::make_unique<FakeSparseHead>());
  }
  Model model{options_.manifest.value_or(FakeManifest()), std::make_unique<FakeTokenizer>(options_.no_memory)};
  auto served =
      std::make_unique<ServedModel>("fake", std::make_unique<const Model>(std::move(model)), std::move(encoder),
                                    Device{scheduler_, admission_}, options_.model, metrics_);
  EXPECT_TRUE(models_.Add(std::move(served)).ok());
  host_ = std::make_unique<HostContext>(HostContext{.clock = clock_,
                                                    .metrics = metrics_,
                                                    .ledger = ledger_,
                                                    .max_request_bytes = options_.config.limits.max_request_bytes,
                                                    .max_response_bytes = options_.config.limits.max_response_bytes,
                                                    .api_keys = options_.api_keys.get(),
                                                    .streams = &streams_,
                                                    .max_stream_age = options_.config.connections.max_age});
  api_ = std::make_unique<LongembedContext>(LongembedContext{
      {.models = models_, .pool = pool_, .clock = clock_, .limits = options_.config.limits}, options_.profiles});
  apis_ = *Apis::Make(options_.config.tei, *api_, options_.profiles, *host_);
  health_.Add(apis_->names());
  grpc_ = std::make_unique<GrpcServer>(options_.config, *host_);
  EXPECT_TRUE(grpc_->Start(apis_->services(), health_, *Acceptor::Listen("127.0.0.1:0", {})).ok());
}

FakeServer::~FakeServer() {
  encoder_->OpenGate();
  grpc_->Shutdown(absl::Seconds(5));
}

std::shared_ptr<grpc::Channel> FakeServer::Connect(int port) {
  return grpc::CreateChannel(absl::StrCat("127.0.0.1:", port), grpc::InsecureChannelCredentials());
}

}  // namespace longembed
