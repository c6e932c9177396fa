#include "server/errors/rpc_status.h"

#include <optional>
#include <string>

#include "absl/time/time.h"
#include "google/rpc/error_details.pb.h"
#include "model/errors/errors.h"
#include "model/text/utf8.h"
#include "server/errors/errors.h"

namespace longembed {

google::rpc::Status ToRpcStatus(const absl::Status& status) {
  google::rpc::Status rpc;
  rpc.set_code(static_cast<int>(status.code()));  // absl's codes equal gRPC's.
  // Protobuf's JSON would leave out bytes that are not UTF-8, which the path of an HTTP request may hold.
  const std::string message = ReplaceInvalidUtf8(std::string(status.message()));
  rpc.set_message(message);
  if (const std::string field = ErrorField(status); !field.empty()) {
    google::rpc::BadRequest bad_request;
    auto* violation = bad_request.add_field_violations();
    violation->set_field(field);
    violation->set_description(message);
    rpc.add_details()->PackFrom(bad_request);
  }
  if (const std::string reason = ErrorReason(status); !reason.empty()) {
    google::rpc::ErrorInfo info;
    info.set_reason(reason);
    info.set_domain("longembed");
    rpc.add_details()->PackFrom(info);
  }
  if (const std::optional<absl::Duration> delay = RetryDelay(status); delay.has_value()) {
    google::rpc::RetryInfo retry;
    absl::Duration rest;
    retry.mutable_retry_delay()->set_seconds(absl::IDivDuration(*delay, absl::Seconds(1), &rest));
    retry.mutable_retry_delay()->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(rest)));
    rpc.add_details()->PackFrom(retry);
  }
  return rpc;
}

}  // namespace longembed
