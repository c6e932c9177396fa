#include "model/plan/extension_json.h"

#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/plan/extension_fields.h"

namespace longembed {
namespace {

using nlohmann::json;

// Converts lowerCamelCase to snake_case: neighborWindow -> neighbor_window.
std::string SnakeCase(std::string_view key) {
  std::string snake;
  for (const char c : key) {
    if (absl::ascii_isupper(static_cast<unsigned char>(c))) snake += '_';
    snake += absl::ascii_tolower(static_cast<unsigned char>(c));
  }
  return snake;
}

// Parses a JSON object. Errors: invalid JSON, a key that appears twice in an object.
absl::StatusOr<json> ParseJson(std::string_view text) {
  std::vector<std::set<std::string>> open;  // Keys seen so far in each enclosing object.
  std::string twice;
  const auto watch = [&](int, json::parse_event_t event, json& value) {
    if (event == json::parse_event_t::object_start) open.emplace_back();
    if (event == json::parse_event_t::object_end) open.pop_back();
    if (event == json::parse_event_t::key) {
      const std::string key = SnakeCase(value.get_ref<const std::string&>());
      if (!open.back().insert(key).second) twice = key;
    }
    return true;
  };
  json parsed = json::parse(text, watch, /*allow_exceptions=*/false);
  if (!twice.empty()) return absl::InvalidArgumentError(absl::StrCat(twice, " appears twice"));
  if (!parsed.is_object()) return absl::InvalidArgumentError("is not a JSON object");
  return parsed;
}

// Reads the fields of one JSON object. Lives during one ParseExtension call.
class JsonFields {
 public:
  JsonFields(const json& object, std::string path, absl::Status& status) : path_(std::move(path)), status_(status) {
    for (const auto& [key, value] : object.items()) values_.emplace(SnakeCase(key), &value);
  }

  void Number(const char* name, std::optional<int64_t>& value) {
    constexpr double kMost = std::numeric_limits<uint32_t>::max();
    std::optional<double> number;
    Number(name, number);
    if (!number.has_value()) return;
    const bool whole = *number >= 0 && *number <= kMost && *number == std::floor(*number);
    if (!whole) return Wrong(name, absl::StrCat("must be a whole number from 0 to ", kMost));
    value = static_cast<int64_t>(*number);
  }
  void Number(const char* name, int64_t& value) {
    std::optional<int64_t> number;
    Number(name, number);
    value = number.value_or(value);
  }
  void Number(const char* name, std::optional<double>& value) {
    const json* found = Find(name);
    double number = 0;
    if (found == nullptr) return;
    if (found->is_number()) {
      value = found->get<double>();
    } else if (found->is_string() && absl::SimpleAtod(found->get_ref<const std::string&>(), &number)) {
      value = number;
    } else {
      Wrong(name, "must be a number");
    }
  }
  void Number(const char* name, double& value) {
    std::optional<double> number;
    Number(name, number);
    value = number.value_or(value);
  }

  void Flag(const char* name, bool& value) {
    const json* found = Find(name);
    if (found == nullptr) return;
    if (found->is_boolean()) {
      value = found->get<bool>();
    } else if (*found == "true" || *found == "false") {
      value = *found == "true";
    } else {
      Wrong(name, "must be true or false");
    }
  }

  template <typename Enum>
  void Choice(const char* name, Enum& value, std::span<const char* const> names) {
    const json* found = Find(name);
    if (found == nullptr) return;
    for (size_t i = 0; i < names.size(); ++i) {
      if (*found != std::string(names[i])) continue;
      value = static_cast<Enum>(i);
      return;
    }
    Wrong(name, absl::StrCat("must be one of ", absl::StrJoin(names, ", ")));
  }

  template <typename Describe>
  bool Section(const char* name, Describe describe) {
    const json* found = Find(name);
    if (found == nullptr) return false;
    if (!found->is_object()) {
      Wrong(name, "must be an object");
      return true;
    }
    JsonFields below(*found, absl::StrCat(path_, name, "."), status_);
    describe(below);
    below.CheckKeys();
    return true;
  }

  void Fail(absl::Status status) {
    if (status_.ok()) status_ = std::move(status);
  }

  // Refuses unknown keys. Call it after reading all fields.
  void CheckKeys() {
    for (const auto& [key, value] : values_) {
      if (!known_.contains(key)) Wrong(key, absl::StrCat("is unknown; known here: ", absl::StrJoin(known_, ", ")));
    }
  }

 private:
  const json* Find(const char* name) {
    known_.emplace(name);
    const auto found = values_.find(name);
    return found == values_.end() ? nullptr : found->second;
  }
  void Wrong(const std::string& name, const std::string& what) {
    Fail(absl::InvalidArgumentError(absl::StrCat(path_, name, ": ", what)));
  }

  std::map<std::string, const json*> values_;
  const std::string path_;
  absl::Status& status_;
  std::set<std::string> known_;
};

// Writes the fields of one section, defaults included.
class CanonicalFields {
 public:
  explicit CanonicalFields(bool adaptive) : adaptive_(adaptive) {}

  template <typename T>
  void Number(const char* name, const std::optional<T>& value) {
    if (value.has_value()) {
      object_[name] = *value;
    } else if (adaptive_) {
      object_[name] = "adaptive";
    }
  }
  void Number(const char* name, int64_t value) { object_[name] = value; }
  void Number(const char* name, double value) { object_[name] = value; }
  template <typename Enum>
  void Choice(const char* name, Enum value, std::span<const char* const> names) {
    object_[name] = std::string(names[static_cast<size_t>(value)]);
  }

  json& object() { return object_; }

 private:
  const bool adaptive_;
  json object_ = json::object();
};

}  // namespace

absl::StatusOr<Extension> ParseExtension(std::string_view text) {
  const absl::StatusOr<json> parsed = ParseJson(text);
  if (!parsed.ok()) return parsed.status();
  if (parsed->contains("recommended") || parsed->contains("profile")) {
    return absl::InvalidArgumentError("refers to another extension; write that extension out here");
  }
  absl::Status status;
  JsonFields fields(*parsed, "", status);
  Extension extension = ReadExtension(fields);
  fields.CheckKeys();
  if (!status.ok()) return status;
  return extension;
}

json CanonicalJson(const ModelManifest& model, const Extension& extension) {
  json result = json::object();
  const auto add = [&result, &model](auto method) {
    if constexpr (requires { method.WithDefaults(model); }) method = method.WithDefaults(model);
    CanonicalFields fields(method.kAdaptive);
    method.Describe(fields);
    if (*method.kName != '\0') result[method.kName] = std::move(fields.object());
  };
  std::visit(add, extension.positions);
  if (extension.windows.has_value()) {
    Windows windows = *extension.windows;
    windows.tokens = WindowTokens(model, extension);
    if (windows.aggregation == Aggregation::kNormWeighted && !windows.norm_temperature.has_value()) {
      windows.norm_temperature = Windows::kNormTemperature;
    }
    if (windows.aggregation == Aggregation::kTopNorm && !windows.top.has_value()) windows.top = Windows::kTop;
    CanonicalFields fields(/*adaptive=*/false);
    DescribeWindows(fields, windows);
    result["windows"] = std::move(fields.object());
  }
  if (extension.resonance) result["resonance"] = true;
  if (extension.attention_log_scaling) result["attention_log_scaling"] = true;
  const double temperature = extension.attention_temperature.value_or(1);
  if (temperature != 1) result["attention_temperature"] = temperature;
  if (auto calibration = extension.attention_calibration; calibration.has_value() && calibration->strength != 0) {
    CanonicalFields fields(/*adaptive=*/false);
    calibration->Describe(fields);
    result[AttentionCalibration::kName] = std::move(fields.object());
  }
  if (!result.empty()) result["when"] = std::string(kWhenNames[static_cast<size_t>(extension.when)]);
  return result;
}

}  // namespace longembed
