#include "server/rpc/grpc_status.h"

#include <gtest/gtest.h>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "model/errors/errors.h"
#include "server/errors/errors.h"
#include "server/errors/rpc_status.h"

namespace longembed {
namespace {

template <typename Detail>
bool Unpack(const google::rpc::Status& status, Detail& detail) {
  for (const auto& any : status.details()) {
    if (any.UnpackTo(&detail)) return true;
  }
  return false;
}

TEST(GrpcStatusTest, BadRequestAndErrorInfo) {
  const grpc::Status status = ToGrpcStatus(AtField(InputTooLong(600, 512), "inputs[4]"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  EXPECT_EQ(details.code(), 3);
  EXPECT_EQ(details.message(), status.error_message());
  google::rpc::BadRequest bad_request;
  ASSERT_TRUE(Unpack(details, bad_request));
  EXPECT_EQ(bad_request.field_violations(0).field(), "inputs[4]");
  google::rpc::ErrorInfo info;
  ASSERT_TRUE(Unpack(details, info));
  EXPECT_EQ(info.reason(), "INPUT_TOO_LONG");
  EXPECT_EQ(info.domain(), "longembed");
}

TEST(GrpcStatusTest, OverloadCarriesRetryInfo) {
  const google::rpc::Status status = ToRpcStatus(
      Overloaded(Overload::kQueueTokens, {.queued_tokens = 10, .max_queued_tokens = 5}, absl::Milliseconds(1250)));
  EXPECT_EQ(status.code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  google::rpc::RetryInfo retry;
  ASSERT_TRUE(Unpack(status, retry));
  EXPECT_EQ(retry.retry_delay().seconds(), 1);
  EXPECT_EQ(retry.retry_delay().nanos(), 250000000);
}

// The path of an HTTP request names a model by any bytes, and strings of protobuf hold UTF-8 only.
TEST(GrpcStatusTest, BytesThatAreNotUtf8AreReplaced) {
  const google::rpc::Status status = ToRpcStatus(UnknownModel("model", "\xff", {}));
  EXPECT_EQ(status.message(), "model: is \"\uFFFD\"; this server has: ");
  google::rpc::BadRequest bad_request;
  ASSERT_TRUE(Unpack(status, bad_request));
  EXPECT_EQ(bad_request.field_violations(0).description(), status.message());
}

TEST(GrpcStatusTest, OkIsOk) { EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok()); }

}  // namespace
}  // namespace longembed
