#include "server/api/longembed/extension_converter.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"
#include "model/plan/extension_fields.h"
#include "model/plan/recommendations.h"
#include "server/errors/errors.h"
#include "system/return_if_error.h"

namespace longembed {
namespace {

constexpr char kField[] = "options.extension";

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

const FieldDescriptor& FieldOf(const Message& message, const char* name) {
  return *message.GetDescriptor()->FindFieldByName(name);
}

// Reads an extension's fields from a message whose fields have the same names.
class MessageFields {
 public:
  MessageFields(const Message& message, std::string path, absl::Status& status)
      : message_(message), path_(std::move(path)), status_(status) {}

  template <typename T>
  void Number(const char* name, std::optional<T>& value) const {
    if (!Has(name)) return;
    T number{};
    Number(name, number);
    value = number;
  }
  void Number(const char* name, int64_t& value) const {
    if (Has(name)) value = reflection().GetUInt32(message_, &FieldOf(message_, name));
  }
  void Number(const char* name, double& value) const {
    if (Has(name)) value = reflection().GetDouble(message_, &FieldOf(message_, name));
  }
  void Flag(const char* name, bool& value) const { value = reflection().GetBool(message_, &FieldOf(message_, name)); }
  template <typename Enum>
  void Choice(const char* name, Enum& value, std::span<const char* const> names) {
    const FieldDescriptor& field = FieldOf(message_, name);
    const int number = reflection().GetEnumValue(message_, &field);
    const auto* known = field.enum_type()->FindValueByNumber(number);
    if (known == nullptr) return Fail(UnknownEnumValue(absl::StrCat(path_, name), number));
    value = static_cast<Enum>(std::ranges::find(names, known->name()) - names.begin());
  }
  template <typename Describe>
  bool Section(const char* name, Describe describe) {
    if (!Has(name)) return false;
    const Message& section = reflection().GetMessage(message_, &FieldOf(message_, name));
    MessageFields below(section, absl::StrCat(path_, name, "."), status_);
    describe(below);
    return true;
  }
  void Fail(absl::Status status) {
    if (status_.ok()) status_ = std::move(status);
  }

 private:
  const google::protobuf::Reflection& reflection() const { return *message_.GetReflection(); }
  bool Has(const char* name) const { return reflection().HasField(message_, &FieldOf(message_, name)); }

  const Message& message_;
  const std::string path_;
  absl::Status& status_;
};

// Writes an extension's fields to a message whose fields have the same names. A required number is left unset if it is
// 0, and an enum if it has its first value, because those are the defaults. An optional number is written whenever it
// is present, even as 0.
class MessageWriter {
 public:
  explicit MessageWriter(Message& message) : message_(message) {}

  template <typename T>
  void Number(const char* name, const std::optional<T>& value) {
    if (value.has_value()) Set(name, *value);
  }
  void Number(const char* name, int64_t value) {
    if (value != 0) Set(name, value);
  }
  void Number(const char* name, double value) { Set(name, value); }
  void Flag(const char* name, bool value) { reflection().SetBool(&message_, &FieldOf(message_, name), value); }
  template <typename Enum>
  void Choice(const char* name, Enum value, std::span<const char* const> names) {
    if (value == Enum()) return;
    const FieldDescriptor& field = FieldOf(message_, name);
    const auto* known = field.enum_type()->FindValueByName(std::string(names[static_cast<size_t>(value)]));
    reflection().SetEnumValue(&message_, &field, known->number());
  }
  MessageWriter Section(const char* name) {
    return MessageWriter(*reflection().MutableMessage(&message_, &FieldOf(message_, name)));
  }

 private:
  const google::protobuf::Reflection& reflection() const { return *message_.GetReflection(); }
  void Set(const char* name, int64_t value) {
    reflection().SetUInt32(&message_, &FieldOf(message_, name), static_cast<uint32_t>(value));
  }
  void Set(const char* name, double value) { reflection().SetDouble(&message_, &FieldOf(message_, name), value); }

  Message& message_;
};

// Converts an extension without `recommended` and `profile`. The fields that errors name are relative to it.
absl::StatusOr<Extension> Convert(const v1::Extension& asked) {
  absl::Status status;
  MessageFields fields(asked, "", status);
  Extension extension = ReadExtension(fields);
  if (!status.ok()) return status;
  return extension;
}

absl::StatusOr<Extension> Checked(absl::StatusOr<Extension> extension, const ModelManifest& model) {
  if (!extension.ok()) return extension;
  RETURN_IF_ERROR(CheckExtension(model, *extension));
  return extension;
}

// Checks that `field`, `recommended` or `profile`, is the only field set.
absl::Status CheckAlone(const v1::Extension& asked, const char* field) {
  std::vector<const FieldDescriptor*> set;
  v1::Extension::GetReflection()->ListFields(asked, &set);
  for (const auto* other : set) {
    if (other->name() != field) {
      return ExtensionConflict(absl::StrCat(kField, ".", field),
                               absl::StrCat("cannot be combined with ", other->name()));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Extension> ResolveProfile(const v1::Extension& asked, const ModelManifest& model,
                                         const Profiles& profiles) {
  RETURN_IF_ERROR(CheckAlone(asked, "profile"));
  const auto found = profiles.find(asked.profile());
  if (found == profiles.end()) {
    std::vector<std::string> names;
    for (const auto& [name, extension] : profiles) names.push_back(name);
    return UnknownProfile("options.extension.profile", asked.profile(), names);
  }
  absl::StatusOr<Extension> extension = Checked(found->second, model);
  if (!extension.ok()) {
    return ProfileDoesNotFit("options.extension.profile", asked.profile(), extension.status());
  }
  return extension;
}

absl::StatusOr<Extension> ResolveRecommended(const v1::Extension& asked, v1::EmbedOptions::Output output,
                                             const ModelManifest& model) {
  RETURN_IF_ERROR(CheckAlone(asked, "recommended"));
  const absl::StatusOr<Recommendations> recommended = RecommendationsOf(model);
  if (!recommended.ok()) return recommended.status();
  if (output == v1::EmbedOptions::WINDOW_VECTORS && recommended->window_vectors.has_value()) {
    return *recommended->window_vectors;
  }
  return recommended->one_vector.value_or(Extension());
}

// Returns the kind of a method. Kinds have the names of their methods.
v1::Method::Kind KindOf(const Positions& positions) {
  v1::Method::Kind kind = v1::Method::PLAIN;
  if (!positions.is_plain()) v1::Method::Kind_Parse(absl::AsciiStrToUpper(positions.method), &kind);
  return kind;
}

void FillCalibration(const Calibration& calibration, int64_t n, v1::Method::Calibration& message) {
  message.set_strength(calibration.strength);
  message.set_baskets(static_cast<uint32_t>(CeilDivide(n, calibration.basket)));
  message.set_layers(static_cast<uint32_t>(calibration.layers));
}

void FillMethod(const Positions& positions, int64_t n, v1::Method& message) {
  message.set_kind(KindOf(positions));
  if (positions.factor != 1) message.set_factor(positions.factor);
  if (positions.base.has_value()) message.set_base(*positions.base);
  if (message.kind() == v1::Method::SHIFTED_ROTARY) {
    message.set_shift_from(static_cast<uint32_t>(positions.neighbor_window));
    message.set_local_window(static_cast<uint32_t>(positions.neighbor_window + positions.far_shift));
  } else if (positions.neighbor_window > 0) {
    message.set_group(static_cast<uint32_t>(positions.group));
    message.set_neighbor_window(static_cast<uint32_t>(positions.neighbor_window));
  }
  if (positions.chunk_window > 0) {
    message.set_chunk(static_cast<uint32_t>(positions.modulo));
    message.set_local_window(static_cast<uint32_t>(positions.chunk_window));
  }
  message.set_resonance(positions.resonance);
  if (positions.query_scale != 1) message.set_query_scale(positions.query_scale);
  if (positions.calibration.layers > 0) FillCalibration(positions.calibration, n, *message.mutable_calibration());
}

}  // namespace

v1::Extension ToMessage(Extension extension) {
  v1::Extension message;
  MessageWriter writer(message);
  DescribeModifiers(writer, extension);
  if (extension.windows.has_value()) {
    MessageWriter windows = writer.Section("windows");
    DescribeWindows(windows, *extension.windows);
  }
  if (extension.attention_calibration.has_value()) {
    MessageWriter below = writer.Section(AttentionCalibration::kName);
    extension.attention_calibration->Describe(below);
  }
  const auto write = [&writer](auto& method) {
    if (*method.kName == '\0') return;
    MessageWriter below = writer.Section(method.kName);
    method.Describe(below);
  };
  std::visit(write, extension.positions);
  return message;
}

absl::StatusOr<Extension> ResolveExtension(const v1::Extension& asked, v1::EmbedOptions::Output output,
                                           const ModelManifest& model, const Profiles& profiles) {
  if (!asked.profile().empty()) return ResolveProfile(asked, model, profiles);
  if (asked.has_recommended()) return ResolveRecommended(asked, output, model);
  absl::StatusOr<Extension> extension = Checked(Convert(asked), model);
  if (!extension.ok()) return AtField(extension.status(), kField);
  return extension;
}

void FillRecommendations(const ModelManifest& manifest, v1::Model& model) {
  const absl::StatusOr<Recommendations> recommended = RecommendationsOf(manifest);
  if (!recommended.ok()) return;  // Such a model is not loaded.
  if (recommended->one_vector.has_value()) *model.mutable_recommended_extension() = ToMessage(*recommended->one_vector);
  if (recommended->window_vectors.has_value()) {
    *model.mutable_recommended_multi_vector_extension() = ToMessage(*recommended->window_vectors);
  }
  model.mutable_recommendation_evidence()->insert(manifest.recommendation_evidence.begin(),
                                                  manifest.recommendation_evidence.end());
}

void FillSequence(const PlannedSequence& planned, v1::Sequence& sequence) {
  sequence.set_tokens(static_cast<uint32_t>(planned.tokens));
  sequence.mutable_content()->set_start(static_cast<uint32_t>(planned.content.start));
  sequence.mutable_content()->set_end(static_cast<uint32_t>(planned.content.end));
  FillMethod(planned.positions, planned.tokens, *sequence.mutable_method());
}

}  // namespace longembed
