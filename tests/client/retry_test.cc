#include "client/retry.h"

#include <gtest/gtest.h>

namespace longembed::client {
namespace {

const RetryPolicy kPolicy{
    .max_attempts = 4, .first_delay = absl::Milliseconds(100), .max_delay = absl::Milliseconds(300)};

TEST(RetryTest, UnavailableWaitsLongerEachTime) {
  EXPECT_EQ(DelayBeforeRetry(kPolicy, 1, grpc::UNAVAILABLE, {}, 0.0), absl::Milliseconds(50));
  EXPECT_EQ(DelayBeforeRetry(kPolicy, 2, grpc::UNAVAILABLE, {}, 0.0), absl::Milliseconds(100));
  EXPECT_EQ(DelayBeforeRetry(kPolicy, 3, grpc::UNAVAILABLE, {}, 0.0), absl::Milliseconds(150));  // Half of max_delay.
  EXPECT_EQ(DelayBeforeRetry(kPolicy, 4, grpc::UNAVAILABLE, {}, 0.0), std::nullopt);
}

TEST(RetryTest, OverloadWaitsAsTheServerSays) {
  const Pushback pushback{.delay = absl::Seconds(7)};
  EXPECT_EQ(DelayBeforeRetry(kPolicy, 1, grpc::RESOURCE_EXHAUSTED, pushback, 0.0), absl::Seconds(7));
  EXPECT_EQ(DelayBeforeRetry(kPolicy, 1, grpc::RESOURCE_EXHAUSTED, pushback, 0.5), absl::Seconds(7.7));
  EXPECT_EQ(DelayBeforeRetry(kPolicy, 1, grpc::RESOURCE_EXHAUSTED, {}, 0.0), std::nullopt);
  EXPECT_EQ(DelayBeforeRetry(kPolicy, 1, grpc::UNAVAILABLE, {.never = true}, 0.0), std::nullopt);
}

TEST(RetryTest, OtherErrorsAreFinal) {
  for (const auto code : {grpc::INVALID_ARGUMENT, grpc::DEADLINE_EXCEEDED, grpc::INTERNAL, grpc::CANCELLED}) {
    EXPECT_EQ(DelayBeforeRetry(kPolicy, 1, code, {.delay = absl::Seconds(1)}, 0.0), std::nullopt);
  }
}

}  // namespace
}  // namespace longembed::client
