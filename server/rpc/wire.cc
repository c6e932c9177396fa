#include "server/rpc/wire.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream.h>
#include <google/protobuf/unknown_field_set.h>
#include <google/protobuf/wire_format_lite.h>
#include <grpcpp/support/proto_buffer_reader.h>
#include <grpcpp/support/proto_buffer_writer.h>

#include <limits>
#include <map>
#include <optional>

#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"
#include "model/text/utf8.h"
#include "server/errors/errors.h"
#include "system/return_if_error.h"

namespace longembed {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::UnknownField;
using google::protobuf::UnknownFieldSet;

// Returns a path as errors write it: "inputs[1].text". `index` is that of an element; negative if the field is not
// repeated.
std::string PathOf(const std::string& parent, const FieldDescriptor& field, int index) {
  std::string path = parent.empty() ? field.name() : absl::StrCat(parent, ".", field.name());
  if (index >= 0) absl::StrAppend(&path, "[", index, "]");
  return path;
}

std::optional<absl::Status> FindInvalidUtf8(const Descriptor& type, const UnknownFieldSet& fields,
                                            const std::string& path);

// Checks one length-delimited field.
std::optional<absl::Status> CheckField(const FieldDescriptor& field, const std::string& bytes,
                                       const std::string& path) {
  if (field.type() == FieldDescriptor::TYPE_STRING) {
    const std::optional<size_t> byte = FirstInvalidUtf8Byte(bytes);
    if (byte.has_value()) return InvalidUtf8(path, *byte);
  }
  UnknownFieldSet nested;
  if (field.type() == FieldDescriptor::TYPE_MESSAGE && nested.ParseFromString(bytes)) {
    return FindInvalidUtf8(*field.message_type(), nested, path);
  }
  return std::nullopt;
}

// Follows the descriptor through a message that protobuf rejected, to the first string that is not UTF-8.
std::optional<absl::Status> FindInvalidUtf8(const Descriptor& type, const UnknownFieldSet& fields,
                                            const std::string& path) {
  std::map<int, int> seen;  // Field number -> occurrences, for the index within a repeated field.
  for (int i = 0; i < fields.field_count(); ++i) {
    const UnknownField& unknown = fields.field(i);
    const FieldDescriptor* field = type.FindFieldByNumber(unknown.number());
    if (field == nullptr || unknown.type() != UnknownField::TYPE_LENGTH_DELIMITED) continue;
    const std::string here = PathOf(path, *field, field->is_repeated() ? seen[unknown.number()]++ : -1);
    if (auto error = CheckField(*field, unknown.length_delimited(), here); error.has_value()) return error;
  }
  return std::nullopt;
}

// Returns why protobuf rejected these bytes.
absl::Status ParseError(const grpc::ByteBuffer& bytes, const Descriptor& type) {
  grpc::ByteBuffer again(bytes);
  grpc::ProtoBufferReader reader(&again);
  UnknownFieldSet fields;
  if (reader.status().ok() && fields.ParseFromZeroCopyStream(&reader)) {
    if (auto error = FindInvalidUtf8(type, fields, ""); error.has_value()) return *error;
  }
  return MalformedRequest(type.full_name());
}

// Walks the bytes of a message along its descriptor before protobuf allocates memory for it.
class WireCheck {
 public:
  explicit WireCheck(google::protobuf::io::CodedInputStream& in) : in_(in) {}

  // `path` is that of the field that holds the message; empty for the whole message.
  absl::Status Check(const Descriptor& type, int depth, const std::string& path);
  // Checks the counts. REQUIRES: Check has passed for the whole message.
  absl::Status CheckCounts() const;

 private:
  absl::Status CheckField(const FieldDescriptor& field, int depth, const std::string& path, int index);
  absl::Status CheckNumber(const FieldDescriptor& field, uint32_t tag, const std::string& path);
  absl::Status CheckNumbers(const FieldDescriptor& field, int bytes, const std::string& path);
  absl::Status Malformed() const { return MalformedRequest("message"); }

  google::protobuf::io::CodedInputStream& in_;
  // Occurrences of each field in the whole message. A field that is not repeated may occur again, too, and protobuf may
  // allocate memory for each occurrence.
  std::map<const FieldDescriptor*, int64_t> counts_;
};

// Returns whether the field may have this wire type. Repeated numbers may be packed or not.
bool Fits(const FieldDescriptor& field, google::protobuf::internal::WireFormatLite::WireType type) {
  using google::protobuf::internal::WireFormatLite;
  const auto own = WireFormatLite::WireTypeForFieldType(static_cast<WireFormatLite::FieldType>(field.type()));
  return type == own || (field.is_packable() && type == WireFormatLite::WIRETYPE_LENGTH_DELIMITED);
}

// Returns whether a number on the wire is one of the field's type. Protobuf would silently cut it to 32 bits.
bool InRange(const FieldDescriptor& field, uint64_t value) {
  switch (field.type()) {
    case FieldDescriptor::TYPE_UINT32:
      return value <= std::numeric_limits<uint32_t>::max();
    case FieldDescriptor::TYPE_INT32:
    case FieldDescriptor::TYPE_ENUM:
      return static_cast<int64_t>(value) == static_cast<int32_t>(value);
    default:
      return true;
  }
}

absl::Status WireCheck::Check(const Descriptor& type, int depth, const std::string& path) {
  using google::protobuf::internal::WireFormatLite;
  if (depth == 0) return Malformed();
  std::map<int, int> seen;  // Field number -> occurrences, for the index within a repeated field.
  for (uint32_t tag = in_.ReadTag(); tag != 0; tag = in_.ReadTag()) {
    const int number = WireFormatLite::GetTagFieldNumber(tag);
    const FieldDescriptor* const field = type.FindFieldByNumber(number);
    if (field == nullptr || !Fits(*field, WireFormatLite::GetTagWireType(tag))) return UnknownFieldNumber(path, number);
    if (WireFormatLite::GetTagWireType(tag) != WireFormatLite::WIRETYPE_LENGTH_DELIMITED) {
      RETURN_IF_ERROR(CheckNumber(*field, tag, path));
      continue;
    }
    const int index = field->is_repeated() && !field->is_packable() ? seen[number]++ : -1;
    RETURN_IF_ERROR(CheckField(*field, depth, path, index));
  }
  return absl::OkStatus();
}

absl::Status WireCheck::CheckNumber(const FieldDescriptor& field, uint32_t tag, const std::string& path) {
  using google::protobuf::internal::WireFormatLite;
  ++counts_[&field];
  if (WireFormatLite::GetTagWireType(tag) != WireFormatLite::WIRETYPE_VARINT) {
    return WireFormatLite::SkipField(&in_, tag) ? absl::OkStatus() : Malformed();
  }
  uint64_t value = 0;
  if (!in_.ReadVarint64(&value)) return Malformed();
  return InRange(field, value) ? absl::OkStatus() : UnknownFieldNumber(path, field.number());
}

absl::Status WireCheck::CheckField(const FieldDescriptor& field, int depth, const std::string& path, int index) {
  int size = 0;
  if (!in_.ReadVarintSizeAsInt(&size)) return Malformed();
  if (field.is_packable()) return CheckNumbers(field, size, path);
  ++counts_[&field];
  if (field.type() != FieldDescriptor::TYPE_MESSAGE) return in_.Skip(size) ? absl::OkStatus() : Malformed();
  const auto outer = in_.PushLimit(size);
  RETURN_IF_ERROR(Check(*field.message_type(), depth - 1, PathOf(path, field, index)));
  if (in_.BytesUntilLimit() != 0) return Malformed();
  in_.PopLimit(outer);
  return absl::OkStatus();
}

// Counts packed numbers, which may have one byte each on the wire and have four or eight in memory.
absl::Status WireCheck::CheckNumbers(const FieldDescriptor& field, int bytes, const std::string& path) {
  const auto outer = in_.PushLimit(bytes);
  int64_t numbers = 0;
  for (uint64_t value = 0; in_.BytesUntilLimit() > 0; ++numbers) {
    if (!in_.ReadVarint64(&value)) return Malformed();
    if (!InRange(field, value)) return UnknownFieldNumber(path, field.number());
  }
  in_.PopLimit(outer);
  counts_[&field] += numbers;
  return absl::OkStatus();
}

absl::Status WireCheck::CheckCounts() const {
  for (const auto& [field, count] : counts_) {
    const int64_t limit = field->is_packable() ? kMaxNumbers : kMaxElements;
    if (count > limit) return TooManyElements(field->name(), count, limit);
  }
  return absl::OkStatus();
}

absl::Status CheckWire(const grpc::ByteBuffer& bytes, const Descriptor& type) {
  constexpr int kDepth = 16;  // The server's messages nest half as deep.
  grpc::ByteBuffer again(bytes);
  grpc::ProtoBufferReader reader(&again);
  if (!reader.status().ok()) return MalformedRequest(type.full_name());
  google::protobuf::io::CodedInputStream in(&reader);
  WireCheck check(in);
  const absl::Status status = check.Check(type, kDepth, "");
  const bool malformed = ErrorReason(status) == "MALFORMED_REQUEST" || (status.ok() && !in.ConsumedEntireMessage());
  if (malformed) return MalformedRequest(type.full_name());
  return status.ok() ? check.CheckCounts() : status;
}

}  // namespace

absl::Status ParseMessage(const grpc::ByteBuffer& bytes, int64_t max_bytes, google::protobuf::Message& message) {
  const auto size = static_cast<int64_t>(bytes.Length());
  if (size > max_bytes) return RequestTooLarge(size, max_bytes);
  RETURN_IF_ERROR(CheckWire(bytes, *message.GetDescriptor()));
  grpc::ByteBuffer copy(bytes);  // Shares the slices; the reader needs a buffer that it may change.
  grpc::ProtoBufferReader reader(&copy);
  if (!reader.status().ok() || !message.ParseFromZeroCopyStream(&reader)) {
    return ParseError(bytes, *message.GetDescriptor());
  }
  return absl::OkStatus();
}

namespace {

// Reads the scalars as ReadScalars does. Returns false if the bytes are not well-formed up to their end.
bool ReadScalarsFrom(google::protobuf::io::CodedInputStream& in, google::protobuf::Message& message) {
  using google::protobuf::internal::WireFormatLite;
  constexpr int kMaxString = 1 << 10;
  for (uint32_t tag = in.ReadTag(); tag != 0; tag = in.ReadTag()) {
    const FieldDescriptor* const field =
        message.GetDescriptor()->FindFieldByNumber(WireFormatLite::GetTagFieldNumber(tag));
    const bool single = field != nullptr && !field->is_repeated() && Fits(*field, WireFormatLite::GetTagWireType(tag));
    uint64_t number = 0;
    int size = 0;
    std::string text;
    if (single && field->type() == FieldDescriptor::TYPE_BOOL) {
      if (!in.ReadVarint64(&number)) return false;
      message.GetReflection()->SetBool(&message, field, number != 0);
    } else if (single && field->type() == FieldDescriptor::TYPE_STRING) {
      if (!in.ReadVarintSizeAsInt(&size)) return false;
      if (size > kMaxString ? !in.Skip(size) : !in.ReadString(&text, size)) return false;
      if (!FirstInvalidUtf8Byte(text).has_value()) message.GetReflection()->SetString(&message, field, text);
    } else if (!WireFormatLite::SkipField(&in, tag)) {
      return false;
    }
  }
  return in.ConsumedEntireMessage();
}

}  // namespace

void ReadScalars(const grpc::ByteBuffer& bytes, google::protobuf::Message& message) {
  message.Clear();
  grpc::ByteBuffer again(bytes);
  grpc::ProtoBufferReader reader(&again);
  if (!reader.status().ok()) return;
  google::protobuf::io::CodedInputStream in(&reader);
  if (!ReadScalarsFrom(in, message)) message.Clear();
}

grpc::ByteBuffer SerializeMessage(const google::protobuf::Message& message) {
  grpc::ByteBuffer bytes;
  const size_t size = message.ByteSizeLong();
  constexpr int kBlock = 1 << 20;
  grpc::ProtoBufferWriter writer(&bytes, kBlock, static_cast<int>(size));
  message.SerializeToZeroCopyStream(&writer);
  return bytes;
}

}  // namespace longembed
