#include "server/api/http/json_message.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/util/json_util.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/errors/errors.h"
#include "server/rpc/wire.h"
#include "system/return_if_error.h"

namespace longembed {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using nlohmann::json;

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
  return field.type() == FieldDescriptor::TYPE_MESSAGE ? "an object" : field.cpp_type_name();
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
  // Well-known types, such as Duration, have a JSON form of their own.
  if (is_message && field.message_type()->file()->package() == "google.protobuf") return absl::OkStatus();
  if (is_message) return CheckFields(value, *field.message_type(), path);
  if (value.is_structured()) return WrongJsonType(path, ExpectedOf(field), value.type_name());
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

}  // namespace

absl::Status ReadMessage(const json& object, google::protobuf::Message& message) {
  RETURN_IF_ERROR(CheckFields(object, *message.GetDescriptor(), ""));
  // Protobuf's reader clears its message first, so it gets one of its own.
  const std::unique_ptr<google::protobuf::Message> said(message.New());
  const auto read = google::protobuf::util::JsonStringToMessage(object.dump(), said.get());
  if (!read.ok()) return ToError(std::string(read.message()));
  message.MergeFrom(*said);
  return absl::OkStatus();
}

std::string MessageToJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string text;
  const auto written = google::protobuf::util::MessageToJsonString(message, &text, options);
  return written.ok() ? text : "{}";
}

}  // namespace longembed
