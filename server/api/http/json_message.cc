#include "server/api/http/json_message.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/util/json_util.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/errors/errors.h"
#include "server/errors/errors.h"
#include "server/http/json.h"
#include "server/rpc/wire.h"
#include "system/return_if_error.h"

namespace longembed {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;
using nlohmann::json;

// Returns whether the type, such as Duration, has a JSON form of its own.
bool IsWellKnown(const Descriptor& type) { return type.file()->package() == "google.protobuf"; }

std::vector<std::string> FieldNames(const Descriptor& type) {
  std::vector<std::string> names;
  for (int i = 0; i < type.field_count(); ++i) names.push_back(type.field(i)->name());
  return names;
}

const FieldDescriptor* FindField(const Descriptor& type, const std::string& name) {
  const FieldDescriptor* const field = type.FindFieldByName(name);
  return field != nullptr ? field : type.FindFieldByCamelcaseName(name);
}

const char* ExpectedOf(const FieldDescriptor& field) {
  if (field.type() == FieldDescriptor::TYPE_MESSAGE) return "an object";
  return field.type() == FieldDescriptor::TYPE_STRING ? "a string" : field.cpp_type_name();
}

std::vector<std::string> ValueNames(const EnumDescriptor& type) {
  std::vector<std::string> names;
  for (int i = 0; i < type.value_count(); ++i) names.push_back(type.value(i)->name());
  return names;
}

// Returns whether protobuf's reader takes the value for a number of the enum. It also takes unknown numbers; what reads
// the message refuses those.
bool IsEnumNumber(const json& value, const EnumDescriptor& type) {
  if (value.is_number()) {
    const double number = value.get<double>();
    return number == std::trunc(number) && std::abs(number) <= std::numeric_limits<int32_t>::max();
  }
  int number = 0;
  return value.is_string() && absl::SimpleAtoi(value.get<std::string>(), &number) &&
         type.FindValueByNumber(number) != nullptr;
}

// Checks the value of an enum, because the error of protobuf's reader would not list the names.
absl::Status CheckEnum(const json& value, const EnumDescriptor& type, const std::string& path) {
  const bool is_name = value.is_string() && type.FindValueByName(value.get<std::string>()) != nullptr;
  if (is_name || IsEnumNumber(value, type)) return absl::OkStatus();
  return WrongJsonType(path, absl::StrCat("one of ", absl::StrJoin(ValueNames(type), ", ")), value.dump());
}

absl::Status CheckFields(const json& object, const Descriptor& type, const std::string& path);

// Checks one value of a field, or one element of a repeated field.
absl::Status CheckValue(const json& value, const FieldDescriptor& field, const std::string& path) {
  if (value.is_null()) return absl::OkStatus();
  const bool is_message = field.type() == FieldDescriptor::TYPE_MESSAGE;
  if (is_message && IsWellKnown(*field.message_type())) return absl::OkStatus();
  if (is_message) return CheckFields(value, *field.message_type(), path);
  if (value.is_structured()) return WrongJsonType(path, ExpectedOf(field), value.type_name());
  // Protobuf's reader would not name the element of an array.
  const bool is_text = field.type() == FieldDescriptor::TYPE_STRING;
  if (is_text && !value.is_string()) return WrongJsonType(path, ExpectedOf(field), value.type_name());
  return field.enum_type() == nullptr ? absl::OkStatus() : CheckEnum(value, *field.enum_type(), path);
}

absl::Status CheckField(const json& value, const FieldDescriptor& field, const std::string& path) {
  if (!field.is_repeated() || field.is_map() || value.is_null()) return CheckValue(value, field, path);
  if (!value.is_array()) return WrongJsonType(path, "an array", value.type_name());
  const auto count = static_cast<int64_t>(value.size());
  const int64_t limit = field.is_packable() ? kMaxNumbers : kMaxElements;
  if (count > limit) return TooManyElements(path, count, limit);
  for (size_t i = 0; i < value.size(); ++i) {
    const std::string element = absl::StrCat(path, "[", i, "]");
    // Protobuf's reader would leave it out, and the answers would belong to other elements.
    if (value[i].is_null()) return WrongJsonType(element, ExpectedOf(field), "null");
    RETURN_IF_ERROR(CheckValue(value[i], field, element));
  }
  return absl::OkStatus();
}

// Returns the name of another field of the same oneof that the object sets; empty if there is none.
std::string OtherOfOneof(const json& object, const FieldDescriptor& field) {
  const google::protobuf::OneofDescriptor* const oneof = field.real_containing_oneof();
  for (int i = 0; oneof != nullptr && i < oneof->field_count(); ++i) {
    if (oneof->field(i) == &field) continue;
    for (const std::string& name : {oneof->field(i)->name(), oneof->field(i)->camelcase_name()}) {
      const auto found = object.find(name);
      if (found != object.end() && !found->is_null()) return name;
    }
  }
  return "";
}

absl::Status CheckFields(const json& object, const Descriptor& type, const std::string& path) {
  if (!object.is_object()) return WrongJsonType(path, "an object", object.type_name());
  for (const auto& [key, value] : object.items()) {
    const std::string here = path.empty() ? key : absl::StrCat(path, ".", key);
    const FieldDescriptor* const field = FindField(type, key);
    if (field == nullptr) return UnknownField(here, FieldNames(type));
    // Protobuf's reader would drop one of "max_tokens" and "maxTokens".
    if (key != field->name() && object.contains(field->name())) return DuplicateField(here);
    // Protobuf's reader would not name the field.
    const std::string other = value.is_null() ? "" : OtherOfOneof(object, *field);
    if (!other.empty()) return WrongJsonValue(here, absl::StrCat("cannot be set beside ", other));
    RETURN_IF_ERROR(CheckField(value, *field, here));
  }
  return absl::OkStatus();
}

// Takes the field out of protobuf's message, which has the form "(options.max_tokens): invalid value ...".
absl::Status ToError(const std::string& message) {
  const size_t end = message.find("): ");
  if (message.empty() || message.front() != '(' || end == std::string::npos) return WrongJsonValue("", message);
  return WrongJsonValue(message.substr(1, end - 1), message.substr(end + 3));
}

// Reads one field into a message. Protobuf's reader holds several copies of its text, so a long array is read piece by
// piece.
class FieldReader {
 public:
  FieldReader(const std::string& key, Message& message) : key_(key), message_(message) {}

  absl::Status Read(const json& value) {
    constexpr size_t kPieceBytes = 16 << 10;
    const std::string begin = absl::StrCat("{\"", key_, "\":");
    if (!value.is_array()) return ReadText(absl::StrCat(begin, value.dump(), "}"), 0);
    std::string piece;
    for (size_t i = 0, first = 0; i < value.size(); ++i) {
      absl::StrAppend(&piece, piece.empty() ? begin + "[" : ",", value[i].dump());
      if (piece.size() < kPieceBytes && i + 1 < value.size()) continue;
      piece += "]}";
      RETURN_IF_ERROR(ReadText(piece, std::exchange(first, i + 1)));
      piece.clear();
    }
    return absl::OkStatus();
  }

 private:
  // Reads an object with this field. The elements of an array begin with element `first`.
  absl::Status ReadText(const std::string& object, size_t first) {
    // Protobuf's reader clears its message first, so it gets one of its own.
    const std::unique_ptr<Message> said(message_.New());
    const auto read = google::protobuf::util::JsonStringToMessage(object, said.get());
    if (!read.ok()) return Moved(ToError(std::string(read.message())), first);
    message_.MergeFrom(*said);
    return absl::OkStatus();
  }

  // Renames the field "key[i]" of an error to "key[first + i]".
  absl::Status Moved(const absl::Status& status, size_t first) const {
    const std::string field = ErrorField(status), array = key_ + "[";
    const size_t end = field.find(']');
    size_t index = 0;
    const bool is_element = absl::StartsWith(field, array) && end != std::string::npos &&
                            absl::SimpleAtoi(field.substr(array.size(), end - array.size()), &index);
    if (!is_element) return status;
    return RenameField(status, field.substr(0, end + 1), absl::StrCat(array, first + index, "]"));
  }

  const std::string key_;
  Message& message_;
};

// Appends a message in protobuf's JSON form. Protobuf's own writer takes a microsecond for each number of a vector, and
// cannot stop at a limit.
class MessageWriter {
 public:
  // Stops once `text` has more than `max_bytes`, with incomplete JSON.
  MessageWriter(size_t max_bytes, std::string& text) : max_bytes_(max_bytes), text_(text) {}

  void Append(const Message& message) {
    if (IsWellKnown(*message.GetDescriptor())) return AppendWellKnown(message);
    std::vector<const FieldDescriptor*> fields;
    message.GetReflection()->ListFields(message, &fields);
    const char* separator = "{";
    for (const FieldDescriptor* const field : fields) {
      absl::StrAppend(&text_, std::exchange(separator, ","), "\"", field->name(), "\":");
      field->is_repeated() ? AppendRepeated(message, *field) : AppendValue(message, *field, -1);
    }
    text_ += fields.empty() ? "{}" : "}";
  }

 private:
  void AppendRepeated(const Message& message, const FieldDescriptor& field) {
    const int size = message.GetReflection()->FieldSize(message, &field);
    text_ += field.is_map() ? "{" : "[";
    for (int i = 0; i < size && text_.size() <= max_bytes_; ++i) {
      if (i > 0) text_ += ',';
      field.is_map() ? AppendEntry(message.GetReflection()->GetRepeatedMessage(message, &field, i))
                     : AppendValue(message, field, i);
    }
    text_ += field.is_map() ? "}" : "]";
  }

  void AppendEntry(const Message& entry) {
    AppendValue(entry, *entry.GetDescriptor()->map_key(), -1);
    text_ += ':';
    AppendValue(entry, *entry.GetDescriptor()->map_value(), -1);
  }

  // Appends a field's value, or element `index` of a repeated field.
  void AppendValue(const Message& message, const FieldDescriptor& field, int index) {
    const Reflection& reflection = *message.GetReflection();
    const auto get = [&](auto value, auto element) {
      return index < 0 ? (reflection.*value)(message, &field) : (reflection.*element)(message, &field, index);
    };
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32:
        return absl::StrAppend(&text_, get(&Reflection::GetInt32, &Reflection::GetRepeatedInt32));
      case FieldDescriptor::CPPTYPE_UINT32:
        return absl::StrAppend(&text_, get(&Reflection::GetUInt32, &Reflection::GetRepeatedUInt32));
      case FieldDescriptor::CPPTYPE_INT64:
        return absl::StrAppend(&text_, "\"", get(&Reflection::GetInt64, &Reflection::GetRepeatedInt64), "\"");
      case FieldDescriptor::CPPTYPE_UINT64:
        return absl::StrAppend(&text_, "\"", get(&Reflection::GetUInt64, &Reflection::GetRepeatedUInt64), "\"");
      case FieldDescriptor::CPPTYPE_BOOL:
        text_ += get(&Reflection::GetBool, &Reflection::GetRepeatedBool) ? "true" : "false";
        return;
      case FieldDescriptor::CPPTYPE_FLOAT:
        return AppendNumber(get(&Reflection::GetFloat, &Reflection::GetRepeatedFloat));
      case FieldDescriptor::CPPTYPE_DOUBLE:
        return AppendNumber(get(&Reflection::GetDouble, &Reflection::GetRepeatedDouble));
      case FieldDescriptor::CPPTYPE_ENUM:
        return AppendEnum(get(&Reflection::GetEnumValue, &Reflection::GetRepeatedEnumValue), *field.enum_type());
      case FieldDescriptor::CPPTYPE_STRING:
        return AppendString(get(&Reflection::GetString, &Reflection::GetRepeatedString), field);
      case FieldDescriptor::CPPTYPE_MESSAGE:
        return Append(index < 0 ? reflection.GetMessage(message, &field)
                                : reflection.GetRepeatedMessage(message, &field, index));
    }
  }

  template <typename Number>
  void AppendNumber(Number value) {
    if (std::isfinite(value)) return AppendJsonNumber(value, text_);
    text_ += std::isnan(value) ? "\"NaN\"" : value > 0 ? "\"Infinity\"" : "\"-Infinity\"";
  }

  void AppendEnum(int number, const EnumDescriptor& type) {
    const auto* const value = type.FindValueByNumber(number);
    value == nullptr ? absl::StrAppend(&text_, number) : absl::StrAppend(&text_, "\"", value->name(), "\"");
  }

  void AppendString(const std::string& value, const FieldDescriptor& field) {
    if (field.type() != FieldDescriptor::TYPE_BYTES) return AppendJsonString(value, text_);
    absl::StrAppend(&text_, "\"", absl::Base64Escape(value), "\"");
  }

  void AppendWellKnown(const Message& message) {
    google::protobuf::util::JsonPrintOptions options;
    options.preserve_proto_field_names = true;
    std::string json;
    const auto written = google::protobuf::util::MessageToJsonString(message, &json, options);
    text_ += written.ok() ? json : "null";
  }

  const size_t max_bytes_;
  std::string& text_;
};

}  // namespace

absl::Status ReadMessage(const json& object, Message& message) {
  RETURN_IF_ERROR(CheckFields(object, *message.GetDescriptor(), ""));
  for (const auto& [key, value] : object.items()) {
    RETURN_IF_ERROR(FieldReader(key, message).Read(value));
  }
  return absl::OkStatus();
}

void AppendMessage(const Message& message, int64_t max_bytes, std::string& text) {
  MessageWriter(static_cast<size_t>(max_bytes), text).Append(message);
}

std::string MessageToJson(const Message& message) {
  std::string text;
  AppendMessage(message, std::numeric_limits<int64_t>::max(), text);
  return text;
}

}  // namespace longembed
