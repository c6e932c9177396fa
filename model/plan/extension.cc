#include "model/plan/extension.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"

namespace longembed {
namespace {

template <typename... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};

// A positions method's field in longembed.v1.Extension.
std::string FieldOf(const PositionsMethod& method) {
  static constexpr const char* kFields[] = {
      "", "grouped", "recurrent", "interpolation", "ntk", "ntk_dynamic", "ntk_by_parts", "yarn", "self_extend"};
  return kFields[method.index()];
}

bool NeedsRope(const PositionsMethod& method) {
  return std::holds_alternative<Ntk>(method) || std::holds_alternative<NtkDynamic>(method) ||
         std::holds_alternative<NtkByParts>(method) || std::holds_alternative<Yarn>(method) ||
         std::holds_alternative<SelfExtend>(method);
}

// Also refuses NaN.
absl::Status CheckRange(const std::string& field, double value, double least, double most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return ExtensionValueOutOfRange(field, absl::StrCat(value), absl::StrCat(least, " to ", most));
}

absl::Status CheckRange(const std::string& field, const std::optional<double>& value, double least, double most) {
  return value.has_value() ? CheckRange(field, *value, least, most) : absl::OkStatus();
}

absl::Status CheckRange(const std::string& field, const std::optional<int64_t>& value, int64_t least, int64_t most) {
  if (!value.has_value() || (*value >= least && *value <= most)) return absl::OkStatus();
  return ExtensionValueOutOfRange(field, absl::StrCat(*value), absl::StrCat(least, " to ", most));
}

// Beyond the turns of the fastest and the slowest pair within Lo the ramp of NTK-by-parts would have no pair between
// its ends, or run backwards.
absl::Status CheckBetas(const ModelManifest& model, const std::string& method, double fast, double slow) {
  constexpr double kManyTurns = 1e6, kFewTurns = 1e-6;
  const double most = model.trained_window / (2 * std::numbers::pi * model.rotary_factor);
  const double least = most * std::pow(model.rotary_base, 2.0 / model.rotary_dim - 1);
  if (absl::Status status = CheckRange(method + ".beta_fast", fast, least, kManyTurns); !status.ok()) return status;
  if (absl::Status status = CheckRange(method + ".beta_slow", slow, kFewTurns, most); !status.ok()) return status;
  if (fast > slow) return absl::OkStatus();
  return ExtensionValueOutOfRange(method + ".beta_fast", absl::StrCat(fast), absl::StrCat("above beta_slow, ", slow));
}

absl::Status CheckNtk(const Ntk& ntk) {
  if (ntk.base.has_value() == ntk.factor.has_value()) {
    return ExtensionConflict("ntk", ntk.base.has_value()
                                        ? "has both base and factor; exactly one of them is needed"
                                        : "has neither base nor factor; exactly one of them is needed");
  }
  if (absl::Status status = CheckRange("ntk.factor", ntk.factor, 1, kMaxFactor); !status.ok()) return status;
  // At a base of 1 every pair turns alike. The comparison this way round refuses NaN.
  if (!ntk.base.has_value() || (*ntk.base > 1 && *ntk.base <= kMaxRotaryBase)) return absl::OkStatus();
  return ExtensionValueOutOfRange("ntk.base", absl::StrCat(*ntk.base),
                                  absl::StrCat("above 1, at most ", kMaxRotaryBase));
}

absl::Status CheckSelfExtend(const ModelManifest& model, const SelfExtend& method) {
  const auto most_group = static_cast<int64_t>(kMaxFactor);
  // One token a group leaves nothing to extend by, and no neighbour window to find.
  const int64_t least_group = method.neighbour_window.has_value() ? 1 : 2;
  if (absl::Status status = CheckRange("self_extend.group", method.group, least_group, most_group); !status.ok()) {
    return status;
  }
  return CheckRange("self_extend.neighbor_window", method.neighbour_window, 1, model.trained_window - 1);
}

absl::Status CheckNumbers(const ModelManifest& model, const PositionsMethod& positions) {
  const auto check = Overloaded{
      [](const PlainPositions&) { return absl::OkStatus(); },
      [](const Recurrent&) { return absl::OkStatus(); },
      [](const Grouped& m) { return CheckRange("grouped.factor", m.factor, 1, static_cast<int64_t>(kMaxFactor)); },
      [](const Interpolation& m) { return CheckRange("interpolation.factor", m.factor, 1.0, kMaxFactor); },
      [](const Ntk& m) { return CheckNtk(m); },
      [](const NtkDynamic& m) { return CheckRange("ntk_dynamic.factor", m.factor, 1, kMaxFactor); },
      [&](const NtkByParts& m) {
        absl::Status status = CheckRange("ntk_by_parts.factor", m.factor, 1.0, kMaxFactor);
        return status.ok() ? CheckBetas(model, "ntk_by_parts", m.beta_fast, m.beta_slow) : status;
      },
      [&](const Yarn& m) {
        absl::Status status = CheckRange("yarn.factor", m.factor, 1.0, kMaxFactor);
        return status.ok() ? CheckBetas(model, "yarn", m.beta_fast, m.beta_slow) : status;
      },
      [&](const SelfExtend& m) { return CheckSelfExtend(model, m); },
  };
  return std::visit(check, positions);
}

absl::Status CheckResonance(const ModelManifest& model, const PositionsMethod& positions) {
  if (model.family != Family::kRope) return MethodNotAvailable("resonance", model.name, "APE", MethodsOf(model.family));
  const bool reorders = std::holds_alternative<Grouped>(positions) || std::holds_alternative<Recurrent>(positions) ||
                        std::holds_alternative<SelfExtend>(positions);
  if (!reorders) return absl::OkStatus();
  return ExtensionConflict("resonance", absl::StrCat("cannot be combined with ", FieldOf(positions),
                                                     "; it goes with plain positions, interpolation, ntk, ntk_dynamic, "
                                                     "ntk_by_parts and yarn"));
}

absl::Status CheckWindows(const ModelManifest& model, const Extension& extension) {
  const Windows& windows = *extension.windows;
  if (absl::Status status = CheckRange("windows.tokens", windows.tokens, 1, INT32_MAX); !status.ok()) return status;
  const int64_t tokens = WindowTokens(model, extension);
  const bool plain = std::holds_alternative<PlainPositions>(extension.positions);
  const std::optional<int64_t> capacity = plain ? model.trained_window : SequenceCapacity(model, extension);
  if (capacity.has_value() && tokens > *capacity) {
    return WindowTooLarge("windows.tokens", tokens, *capacity);
  }
  const auto specials = static_cast<int64_t>(model.special_prefix.size() + model.special_suffix.size());
  if (tokens <= specials) return WindowTooSmall(tokens, specials);
  if (windows.overlap < 0 || windows.overlap >= tokens - specials) {
    return OverlapTooLarge("windows.overlap", windows.overlap, tokens - specials);
  }
  return absl::OkStatus();
}

int64_t Scaled(double factor, int64_t trained_window) {
  // A hair above, because 1.16 * 100 is 115.99999999999999 in doubles and should be 116.
  return static_cast<int64_t>(std::floor(factor * static_cast<double>(trained_window) * (1 + 1e-12)));
}

}  // namespace

std::vector<std::string> MethodsOf(Family family) {
  std::vector<std::string> methods{"windows", "grouped", "recurrent", "interpolation", "attention_log_scaling"};
  if (family == Family::kRope) {
    methods.insert(methods.end(), {"ntk", "ntk_dynamic", "ntk_by_parts", "yarn", "self_extend", "resonance"});
  }
  return methods;
}

absl::Status CheckExtension(const ModelManifest& model, const Extension& extension) {
  if (model.family != Family::kRope && NeedsRope(extension.positions)) {
    return MethodNotAvailable(FieldOf(extension.positions), model.name, "APE", MethodsOf(model.family));
  }
  if (absl::Status status = CheckNumbers(model, extension.positions); !status.ok()) return status;
  if (extension.resonance) {
    if (absl::Status status = CheckResonance(model, extension.positions); !status.ok()) return status;
  }
  return extension.windows.has_value() ? CheckWindows(model, extension) : absl::OkStatus();
}

std::optional<int64_t> SequenceCapacity(const ModelManifest& model, const Extension& extension) {
  const int64_t window = model.trained_window;
  const auto scaled = [window](const auto& factor) -> std::optional<int64_t> {
    if (!factor.has_value()) return std::nullopt;
    return Scaled(static_cast<double>(*factor), window);
  };
  const auto capacity = Overloaded{
      [&](const PlainPositions&) -> std::optional<int64_t> { return model.plain_limit; },
      [&](const Recurrent&) -> std::optional<int64_t> { return std::nullopt; },
      [&](const NtkDynamic&) -> std::optional<int64_t> { return std::nullopt; },
      [&](const Grouped& m) { return scaled(m.factor); },
      [&](const Interpolation& m) { return scaled(m.factor); },
      [&](const Ntk& m) { return scaled(m.factor); },
      [&](const NtkByParts& m) { return scaled(m.factor); },
      [&](const Yarn& m) { return scaled(m.factor); },
      [&](const SelfExtend& m) -> std::optional<int64_t> {
        // Beyond Lo * Lo tokens the adaptive neighbour window, floor(Lo / s), would be empty.
        if (!m.group.has_value() && !m.neighbour_window.has_value()) return window * window;
        if (!m.group.has_value()) return std::nullopt;
        // Without a window the smallest one, 1 token, reaches furthest.
        const int64_t w = m.neighbour_window.value_or(1);
        return *m.group * (window - w) + w;
      },
  };
  return std::visit(capacity, extension.positions);
}

int64_t WindowTokens(const ModelManifest& model, const Extension& extension) {
  if (extension.windows->tokens.has_value()) return *extension.windows->tokens;
  const auto* self_extend = std::get_if<SelfExtend>(&extension.positions);
  const bool adaptive = self_extend != nullptr && !self_extend->neighbour_window.has_value();
  if (adaptive || std::holds_alternative<PlainPositions>(extension.positions)) return model.trained_window;
  return SequenceCapacity(model, extension).value_or(model.trained_window);
}

}  // namespace longembed
