#include "server/rpc/wire.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream.h>
#include <google/protobuf/unknown_field_set.h>
#include <google/protobuf/wire_format_lite.h>
#include <grpcpp/support/proto_buffer_reader.h>
#include <grpcpp/support/proto_buffer_writer.h>

#include <map>
#include <optional>

#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"
#include "model/text/utf8.h"
#include "server/errors/errors.h"

namespace longembed {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::UnknownField;
using google::protobuf::UnknownFieldSet;

std::optional<absl::Status> FindInvalidUtf8(const Descriptor& type, const UnknownFieldSet& fields,
                                            const std::string& path);

// Looks into one length-delimited field.
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

// Walks a message that protobuf refused, along its descriptor, to the first string that is not UTF-8.
std::optional<absl::Status> FindInvalidUtf8(const Descriptor& type, const UnknownFieldSet& fields,
                                            const std::string& path) {
  std::map<int, int> seen;  // Field number -> how often, for the index within a repeated field.
  for (int i = 0; i < fields.field_count(); ++i) {
    const UnknownField& unknown = fields.field(i);
    const FieldDescriptor* field = type.FindFieldByNumber(unknown.number());
    if (field == nullptr || unknown.type() != UnknownField::TYPE_LENGTH_DELIMITED) continue;
    std::string here = path.empty() ? field->name() : absl::StrCat(path, ".", field->name());
    if (field->is_repeated()) absl::StrAppend(&here, "[", seen[unknown.number()]++, "]");
    if (auto error = CheckField(*field, unknown.length_delimited(), here); error.has_value()) return error;
  }
  return std::nullopt;
}

// Why protobuf refused these bytes.
absl::Status ParseError(const grpc::ByteBuffer& bytes, const Descriptor& type) {
  grpc::ByteBuffer again(bytes);
  grpc::ProtoBufferReader reader(&again);
  UnknownFieldSet fields;
  if (reader.status().ok() && fields.ParseFromZeroCopyStream(&reader)) {
    if (auto error = FindInvalidUtf8(type, fields, ""); error.has_value()) return *error;
  }
  return MalformedRequest(type.full_name());
}

// How many messages and strings each repeated field has.
using ElementCounts = std::map<const FieldDescriptor*, int64_t>;

// Adds those of one message. False: it is malformed, as far as this looks.
bool CountElements(google::protobuf::io::CodedInputStream& in, const Descriptor& type, int depth,
                   ElementCounts& counts) {
  using google::protobuf::internal::WireFormatLite;
  for (uint32_t tag = in.ReadTag(); tag != 0; tag = in.ReadTag()) {
    const FieldDescriptor* const field = type.FindFieldByNumber(WireFormatLite::GetTagFieldNumber(tag));
    if (field == nullptr || WireFormatLite::GetTagWireType(tag) != WireFormatLite::WIRETYPE_LENGTH_DELIMITED) {
      if (!WireFormatLite::SkipField(&in, tag)) return false;
      continue;
    }
    int size = 0;
    if (!in.ReadVarintSizeAsInt(&size)) return false;
    if (field->is_repeated()) ++counts[field];
    if (field->type() == FieldDescriptor::TYPE_MESSAGE && depth > 0) {
      const auto outer = in.PushLimit(size);
      if (!CountElements(in, *field->message_type(), depth - 1, counts) || in.BytesUntilLimit() != 0) return false;
      in.PopLimit(outer);
    } else if (!in.Skip(size)) {
      return false;
    }
  }
  return true;
}

absl::Status CheckElements(const grpc::ByteBuffer& bytes, const Descriptor& type) {
  constexpr int kDepth = 8;  // Of our messages; what is deeper is left to protobuf.
  grpc::ByteBuffer again(bytes);
  grpc::ProtoBufferReader reader(&again);
  if (!reader.status().ok()) return MalformedRequest(type.full_name());
  google::protobuf::io::CodedInputStream in(&reader);
  ElementCounts counts;
  CountElements(in, type, kDepth, counts);
  for (const auto& [field, count] : counts) {
    if (count > kMaxElements) return TooManyElements(field->name(), count, kMaxElements);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ParseMessage(const grpc::ByteBuffer& bytes, int64_t max_bytes, google::protobuf::Message& message) {
  const auto size = static_cast<int64_t>(bytes.Length());
  if (size > max_bytes) return RequestTooLarge(size, max_bytes);
  if (absl::Status status = CheckElements(bytes, *message.GetDescriptor()); !status.ok()) return status;
  grpc::ByteBuffer copy(bytes);  // References the same slices; the reader wants one that it may change.
  grpc::ProtoBufferReader reader(&copy);
  if (!reader.status().ok() || !message.ParseFromZeroCopyStream(&reader)) {
    return ParseError(bytes, *message.GetDescriptor());
  }
  return absl::OkStatus();
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
