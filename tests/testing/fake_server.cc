#include "tests/testing/fake_server.h"

#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <utility>

#include "absl/strings/str_cat.h"

namespace longembed {

FakeServer::FakeServer(Options options) : options_(std::move(options)) {
  auto encoder = std::make_unique<FakeEncoder>();
  encoder_ = encoder.get();
  Model model{options_.manifest.value_or(FakeManifest()), std::make_unique<FakeTokenizer>(options_.no_memory)};
  auto served =
      std::make_unique<ServedModel>("fake", std::make_unique<const Model>(std::move(model)), std::move(encoder),
                                    Device{scheduler_, admission_}, options_.model, metrics_);
  EXPECT_TRUE(models_.Add(std::move(served)).ok());
  grpc_ = *GrpcServer::Start(options_.config,
                             {.models = models_,
                              .pool = pool_,
                              .clock = clock_,
                              .metrics = metrics_,
                              .limits = options_.config.limits,
                              .profiles = options_.profiles,
                              .pending = pending_},
                             /*certificates=*/nullptr, *Acceptor::Listen("127.0.0.1:0", {}));
}

FakeServer::~FakeServer() {
  encoder_->OpenGate();
  grpc_->Shutdown(absl::Seconds(5));
}

std::shared_ptr<grpc::Channel> FakeServer::Connect(int port) {
  return grpc::CreateChannel(absl::StrCat("127.0.0.1:", port), grpc::InsecureChannelCredentials());
}

}  // namespace longembed
