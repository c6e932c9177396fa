#include "model/plan/extension.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/errors/errors.h"
#include "model/plan/methods/range.h"
#include "system/return_if_error.h"

namespace longembed {
namespace {

bool IsPlain(const Extension& extension) { return std::holds_alternative<PlainPositions>(extension.positions); }

template <typename Method>
constexpr bool ReplacesFrequencies() {
  return requires { Method::kReplacesFrequencies; };
}

absl::Status CheckMethod(const ModelManifest& model, const PositionsMethod& positions) {
  const auto check = [&model]<typename Method>(const Method& method) {
    if (method.kRotary && model.family != Family::kRope) {
      return MethodNotAvailable(method.kName, model.name, "APE", MethodsOf(model));
    }
    if (ReplacesFrequencies<Method>() && model.rotary_scaling.has_value()) {
      return MethodNotAvailable(method.kName, model.name,
                                absl::StrCat("ROPE with the checkpoint's own scaling, ", model.rotary_scaling->kind),
                                MethodsOf(model));
    }
    return method.Check(model);
  };
  return std::visit(check, positions);
}

std::string MethodsThatScale() {
  std::vector<const char*> names;
  ForEachMethod([&names](const auto& method) {
    if (!method.kMovesTokens) names.push_back(method.kName);
  });
  const char* const last = names.back();
  names.pop_back();
  return absl::StrCat(absl::StrJoin(names, ", "), " and ", last);
}

absl::Status CheckResonance(const ModelManifest& model, const PositionsMethod& positions) {
  if (model.family != Family::kRope) return MethodNotAvailable("resonance", model.name, "APE", MethodsOf(model));
  const auto check = [](const auto& method) {
    if (!method.kMovesTokens) return absl::OkStatus();
    return ExtensionConflict("resonance", absl::StrCat("cannot be combined with ", method.kName,
                                                       "; it goes with plain positions, ", MethodsThatScale()));
  };
  return std::visit(check, positions);
}

// Checks a field that only one aggregation uses.
absl::Status CheckGoesWith(const char* field, bool is_set, const Windows& windows, Aggregation aggregation) {
  if (!is_set || windows.aggregation == aggregation) return absl::OkStatus();
  const auto name = [](Aggregation each) { return kAggregationNames[static_cast<size_t>(each)]; };
  return ExtensionConflict(field, absl::StrCat("needs windows.aggregation ", name(aggregation),
                                               "; windows.aggregation is ", name(windows.aggregation)));
}

absl::Status CheckAggregation(const Windows& windows) {
  constexpr double kMinTemperature = 0.001, kMaxTemperature = 1000;
  const std::optional<double>& temperature = windows.norm_temperature;
  RETURN_IF_ERROR(
      CheckGoesWith("windows.norm_temperature", temperature.has_value(), windows, Aggregation::kNormWeighted));
  RETURN_IF_ERROR(CheckGoesWith("windows.top", windows.top.has_value(), windows, Aggregation::kTopNorm));
  RETURN_IF_ERROR(CheckNumber("windows.norm_temperature", temperature, kMinTemperature, kMaxTemperature));
  RETURN_IF_ERROR(CheckCount("windows.top", windows.top, 1, INT32_MAX));
  return CheckCount("windows.vectors", windows.vectors, 1, INT32_MAX);
}

absl::Status CheckWindows(const ModelManifest& model, const Extension& extension) {
  const Windows& windows = *extension.windows;
  RETURN_IF_ERROR(CheckAggregation(windows));
  RETURN_IF_ERROR(CheckCount("windows.tokens", windows.tokens, 1, INT32_MAX));
  const int64_t tokens = WindowTokens(model, extension);
  const std::optional<int64_t> capacity =
      IsPlain(extension) ? model.trained_window : SequenceCapacity(model, extension);
  if (capacity.has_value() && tokens > *capacity) return WindowTooLarge("windows.tokens", tokens, *capacity);
  const auto specials = static_cast<int64_t>(model.special_prefix.size() + model.special_suffix.size());
  if (tokens <= specials) return WindowTooSmall(tokens, specials);
  if (windows.overlap < 0 || windows.overlap >= tokens - specials) {
    return OverlapTooLarge("windows.overlap", windows.overlap, tokens - specials);
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<std::string> MethodsOf(const ModelManifest& model) {
  std::vector<std::string> methods{"windows"};
  const auto add = [&methods, &model](bool rotary) {
    ForEachMethod([&methods, &model, rotary]<typename Method>(const Method& method) {
      const bool replaces = ReplacesFrequencies<Method>() && model.rotary_scaling.has_value();
      if (method.kRotary == rotary && !replaces) methods.emplace_back(method.kName);
    });
  };
  add(/*rotary=*/false);
  methods.emplace_back("attention_log_scaling");
  methods.emplace_back("attention_temperature");
  methods.emplace_back(AttentionCalibration::kName);
  if (model.family == Family::kRope) {
    add(/*rotary=*/true);
    methods.emplace_back("resonance");
  }
  return methods;
}

absl::Status CheckExtension(const ModelManifest& model, const Extension& extension) {
  RETURN_IF_ERROR(CheckMethod(model, extension.positions));
  if (extension.resonance) {
    RETURN_IF_ERROR(CheckResonance(model, extension.positions));
  }
  constexpr double kMinTemperature = 0.1, kMaxTemperature = 10;
  RETURN_IF_ERROR(
      CheckNumber("attention_temperature", extension.attention_temperature, kMinTemperature, kMaxTemperature));
  if (extension.attention_calibration.has_value()) {
    RETURN_IF_ERROR(extension.attention_calibration->Check());
  }
  return extension.windows.has_value() ? CheckWindows(model, extension) : absl::OkStatus();
}

std::optional<int64_t> SequenceCapacity(const ModelManifest& model, const Extension& extension) {
  return std::visit([&model](const auto& method) { return method.Reach(model); }, extension.positions);
}

int64_t WindowTokens(const ModelManifest& model, const Extension& extension) {
  if (extension.windows->tokens.has_value()) return *extension.windows->tokens;
  const auto size = [&model](const auto& method) -> std::optional<int64_t> {
    if constexpr (requires { method.DefaultWindow(model); }) return method.DefaultWindow(model);
    return method.Reach(model);
  };
  return std::visit(size, extension.positions).value_or(model.trained_window);
}

Positions PositionsOf(const ModelManifest& model, const Extension& extension, int64_t n) {
  Positions positions = std::visit([&](const auto& method) { return method.Resolve(model, n); }, extension.positions);
  positions.resonance = extension.resonance;
  positions.long_factors = model.rotary_scaling.has_value() && !model.rotary_scaling->long_factors.empty() &&
                           n > model.rotary_scaling->long_from;
  if (extension.attention_log_scaling && n > model.trained_window) {
    positions.query_scale = std::log(static_cast<double>(n)) / std::log(static_cast<double>(model.trained_window));
  }
  positions.query_scale /= extension.attention_temperature.value_or(1);
  if (extension.attention_calibration.has_value()) {
    positions.calibration = extension.attention_calibration->Resolve(model, n);
  }
  return positions;
}

}  // namespace longembed
