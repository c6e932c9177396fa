#include "client/errors.h"

#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"

namespace longembed::client {
namespace {

// Reads one detail. ToStatus stores each detail as a payload under its type URL.
template <typename Detail>
Detail ReadDetail(const absl::Status& status) {
  Detail detail;
  const auto payload = status.GetPayload(absl::StrCat("type.googleapis.com/", Detail::descriptor()->full_name()));
  if (payload.has_value() && !detail.ParseFromString(std::string(*payload))) detail.Clear();
  return detail;
}

}  // namespace

ErrorDetails GetErrorDetails(const absl::Status& status) {
  ErrorDetails details{.reason = ReadDetail<google::rpc::ErrorInfo>(status).reason()};
  const auto bad_request = ReadDetail<google::rpc::BadRequest>(status);
  if (bad_request.field_violations_size() > 0) details.field = bad_request.field_violations(0).field();
  const auto retry = ReadDetail<google::rpc::RetryInfo>(status);
  if (retry.has_retry_delay()) {
    details.retry_delay = absl::Seconds(retry.retry_delay().seconds()) + absl::Nanoseconds(retry.retry_delay().nanos());
  }
  return details;
}

absl::Status ToStatus(const google::rpc::Status& status) {
  google::rpc::BadRequest bad_request;
  for (const auto& detail : status.details()) detail.UnpackTo(&bad_request);
  std::string message = status.message();
  for (const auto& violation : bad_request.field_violations()) {
    if (absl::StrContains(message, violation.field())) continue;
    absl::StrAppend(&message, " (", violation.field(), ": ", violation.description(), ")");
  }
  absl::Status result(static_cast<absl::StatusCode>(status.code()), message);
  for (const auto& detail : status.details()) result.SetPayload(detail.type_url(), absl::Cord(detail.value()));
  return result;
}

absl::Status ToStatus(const grpc::Status& status) {
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) details.Clear();
  details.set_code(status.error_code());
  details.set_message(status.error_message());
  return ToStatus(details);
}

}  // namespace longembed::client
