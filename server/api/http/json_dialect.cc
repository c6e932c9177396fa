#include "server/api/http/json_dialect.h"

#include <grpcpp/support/slice.h>

#include <algorithm>
#include <utility>

#include "model/errors/errors.h"
#include "server/errors/errors.h"
#include "server/http/byte_chain.h"
#include "server/http/json.h"

namespace longembed {
namespace {

// Returns a view of the bytes. If they are in several pieces, the view is of a copy that `held` keeps.
std::string_view TextOf(const grpc::ByteBuffer& bytes, grpc::Slice& held) {
  if (bytes.Length() == 0 || (!bytes.TrySingleSlice(&held).ok() && !bytes.DumpToSingleSlice(&held).ok())) return "";
  return {reinterpret_cast<const char*>(held.begin()), held.size()};
}

}  // namespace

int64_t JsonDialect::ParsingBytes(const grpc::ByteBuffer& bytes) const {
  grpc::Slice held;
  const std::string_view text = TextOf(bytes, held);
  grpc::Slice whole;
  const bool is_copy = !bytes.TrySingleSlice(&whole).ok();
  return text.empty() ? 0 : JsonParsingBytes(text) + (is_copy ? static_cast<int64_t>(text.size()) : 0);
}

absl::Status JsonDialect::Parse(const grpc::ByteBuffer& bytes, int64_t max_bytes, google::protobuf::Message& message) {
  const auto size = static_cast<int64_t>(bytes.Length());
  if (size > max_bytes) return RequestTooLarge(size, max_bytes);
  body_bytes_ = size;
  if (size == 0) return Read(nlohmann::json::object(), message);
  grpc::Slice held;
  const absl::StatusOr<nlohmann::json> body = ParseJson(TextOf(bytes, held));
  if (!body.ok()) return body.status();
  if (!body->is_object()) return WrongJsonType("", "an object", body->type_name());
  return Read(*body, message);
}

absl::Status JsonDialect::Serialize(const google::protobuf::Message& request, const google::protobuf::Message& message,
                                    int64_t max_bytes, grpc::ByteBuffer& bytes) {
  max_bytes_ = max_bytes;
  std::string text;
  // The string does not grow step by step, each of which would need room for both the old and the new bytes.
  const auto wire_bytes = static_cast<int64_t>(message.ByteSizeLong());
  text.reserve(static_cast<size_t>(std::min(max_bytes + kMaxOvershoot, MostSerializedBytes(wire_bytes))));
  Write(request, message, text);
  if (IsTooLarge(text)) return JsonAnswerTooLarge(max_bytes);
  if (text.capacity() > text.size() + kMaxOvershoot) text.shrink_to_fit();  // The client may take it slowly.
  bytes = ToBytes(std::move(text));
  headers_ = HeadersFor(message);
  return absl::OkStatus();
}

nlohmann::json ErrorObject(const absl::Status& status, const ErrorKeys& keys) {
  nlohmann::json error{{keys.message, std::string(status.message())}};
  const std::string reason = ErrorReason(status), field = ErrorField(status);
  error[keys.reason] = reason.empty() ? absl::StatusCodeToString(status.code()) : reason;
  error[keys.field] = field.empty() ? nlohmann::json() : nlohmann::json(field);
  return error;
}

}  // namespace longembed
