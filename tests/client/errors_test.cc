#include "client/errors.h"

#include <gtest/gtest.h>

#include "google/rpc/error_details.pb.h"

namespace longembed::client {
namespace {

google::rpc::Status Refusal() {
  google::rpc::Status status;
  status.set_code(grpc::INVALID_ARGUMENT);
  status.set_message("wrong");
  google::rpc::BadRequest bad_request;
  for (const char* field : {"options.dimensions", "inputs[3].text"}) {
    auto& violation = *bad_request.add_field_violations();
    violation.set_field(field);
    violation.set_description("is 0");
  }
  google::rpc::ErrorInfo info;
  info.set_reason("BAD_DIMENSIONS");
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(2);
  retry.mutable_retry_delay()->set_nanos(500'000'000);
  status.add_details()->PackFrom(bad_request);
  status.add_details()->PackFrom(info);
  status.add_details()->PackFrom(retry);
  return status;
}

void ExpectRefusal(const absl::Status& status) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "wrong (options.dimensions: is 0) (inputs[3].text: is 0)");
  const ErrorDetails details = GetErrorDetails(status);
  EXPECT_EQ(details.reason, "BAD_DIMENSIONS");
  EXPECT_EQ(details.field, "options.dimensions");
  EXPECT_EQ(details.retry_delay, absl::Milliseconds(2500));
}

TEST(ErrorsTest, CarryTheServersErrorDetails) {
  const google::rpc::Status refusal = Refusal();
  ExpectRefusal(ToStatus(refusal));
  ExpectRefusal(ToStatus(grpc::Status(grpc::INVALID_ARGUMENT, "wrong", refusal.SerializeAsString())));
}

TEST(ErrorsTest, NameAFieldOnce) {
  google::rpc::Status refusal = Refusal();
  refusal.set_message("options.dimensions: is 0; inputs[3].text: is 0");
  EXPECT_EQ(ToStatus(refusal).message(), refusal.message());
}

TEST(ErrorsTest, WithoutDetails) {
  const absl::Status status = ToStatus(grpc::Status(grpc::UNAVAILABLE, "draining", "no details"));
  EXPECT_EQ(status, absl::UnavailableError("draining"));
  EXPECT_EQ(GetErrorDetails(status).reason, "");
  EXPECT_EQ(GetErrorDetails(status).field, "");
  EXPECT_EQ(GetErrorDetails(status).retry_delay, std::nullopt);
  EXPECT_TRUE(ToStatus(grpc::Status::OK).ok());
}

}  // namespace
}  // namespace longembed::client
