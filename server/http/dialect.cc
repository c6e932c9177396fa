#include "server/http/dialect.h"

#include <map>

#include "model/errors/errors.h"

namespace longembed {

int HttpStatusOf(const absl::Status& status) {
  static const auto& by_reason = *new std::map<std::string, int>{
      {"METHOD_NOT_ALLOWED", 405}, {"REQUEST_TOO_SLOW", 408},   {"REQUEST_TOO_LARGE", 413},
      {"NOT_JSON", 415},           {"COMPRESSED_REQUEST", 415}, {"HEADER_TOO_LARGE", 431}};
  const auto found = by_reason.find(ErrorReason(status));
  if (found != by_reason.end()) return found->second;
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return 200;
    case absl::StatusCode::kCancelled:
      return 499;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
      return 400;
    case absl::StatusCode::kUnauthenticated:
      return 401;
    case absl::StatusCode::kPermissionDenied:
      return 403;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kAborted:
      return 409;
    case absl::StatusCode::kResourceExhausted:
      return 429;
    case absl::StatusCode::kUnimplemented:
      return 501;
    case absl::StatusCode::kUnavailable:
      return 503;
    case absl::StatusCode::kDeadlineExceeded:
      return 504;
    default:
      return 500;
  }
}

}  // namespace longembed
