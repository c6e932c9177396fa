#include "server/api/longembed/extension_converter.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"
#include "server/errors/errors.h"

namespace longembed {
namespace {

constexpr char kField[] = "options.extension";

std::optional<double> OptionalOf(bool has, double value) { return has ? std::optional(value) : std::nullopt; }
std::optional<int64_t> OptionalOf(bool has, uint32_t value) {
  return has ? std::optional<int64_t>(value) : std::nullopt;
}

absl::StatusOr<Windows> ConvertWindows(const v1::Extension::Windows& asked) {
  Windows windows{.tokens = OptionalOf(asked.has_tokens(), asked.tokens()), .overlap = asked.overlap()};
  switch (asked.last()) {
    case v1::Extension::Windows::BACK_EXTENDED:
      windows.last = LastWindow::kBackExtended;
      break;
    case v1::Extension::Windows::SHORT:
      windows.last = LastWindow::kShort;
      break;
    default:
      return UnknownEnumValue("windows.last", asked.last());
  }
  switch (asked.aggregation()) {
    case v1::Extension::Windows::MEAN:
      windows.aggregation = Aggregation::kMean;
      break;
    case v1::Extension::Windows::TOKEN_WEIGHTED_MEAN:
      windows.aggregation = Aggregation::kTokenWeightedMean;
      break;
    case v1::Extension::Windows::MAX:
      windows.aggregation = Aggregation::kMax;
      break;
    case v1::Extension::Windows::FIRST:
      windows.aggregation = Aggregation::kFirst;
      break;
    default:
      return UnknownEnumValue("windows.aggregation", asked.aggregation());
  }
  return windows;
}

template <typename ByParts, typename Message>
ByParts ConvertByParts(const Message& asked) {
  ByParts method{.factor = OptionalOf(asked.has_factor(), asked.factor())};
  if (asked.has_beta_fast()) method.beta_fast = asked.beta_fast();
  if (asked.has_beta_slow()) method.beta_slow = asked.beta_slow();
  return method;
}

// The positions methods that are set, each with its field's name.
std::vector<std::pair<std::string, PositionsMethod>> MethodsSet(const v1::Extension& asked) {
  std::vector<std::pair<std::string, PositionsMethod>> set;
  if (asked.has_grouped()) {
    set.emplace_back("grouped", Grouped{OptionalOf(asked.grouped().has_factor(), asked.grouped().factor())});
  }
  if (asked.has_recurrent()) set.emplace_back("recurrent", Recurrent{});
  if (asked.has_interpolation()) {
    const auto& method = asked.interpolation();
    set.emplace_back("interpolation", Interpolation{OptionalOf(method.has_factor(), method.factor())});
  }
  if (asked.has_ntk()) {
    const auto& method = asked.ntk();
    set.emplace_back("ntk", Ntk{.base = OptionalOf(method.has_base(), method.base()),
                                .factor = OptionalOf(method.has_factor(), method.factor())});
  }
  if (asked.has_ntk_dynamic()) {
    const auto& method = asked.ntk_dynamic();
    set.emplace_back("ntk_dynamic", NtkDynamic{method.has_factor() ? method.factor() : 1});
  }
  if (asked.has_ntk_by_parts()) set.emplace_back("ntk_by_parts", ConvertByParts<NtkByParts>(asked.ntk_by_parts()));
  if (asked.has_yarn()) set.emplace_back("yarn", ConvertByParts<Yarn>(asked.yarn()));
  if (asked.has_self_extend()) {
    const auto& method = asked.self_extend();
    set.emplace_back("self_extend", SelfExtend{.group = OptionalOf(method.has_group(), method.group()),
                                               .neighbour_window =
                                                   OptionalOf(method.has_neighbor_window(), method.neighbor_window())});
  }
  return set;
}

// Of an extension that names everything itself. Fields of errors are relative to it.
absl::StatusOr<Extension> Convert(const v1::Extension& asked) {
  Extension extension{.resonance = asked.resonance(), .attention_log_scaling = asked.attention_log_scaling()};
  if (asked.when() == v1::Extension::ALWAYS) {
    extension.when = When::kAlways;
  } else if (asked.when() != v1::Extension::LONG) {
    return UnknownEnumValue("when", asked.when());
  }
  if (asked.has_windows()) {
    absl::StatusOr<Windows> windows = ConvertWindows(asked.windows());
    if (!windows.ok()) return windows.status();
    extension.windows = *windows;
  }
  std::vector<std::pair<std::string, PositionsMethod>> methods = MethodsSet(asked);
  if (methods.size() > 1) {
    return ExtensionConflict(methods[1].first, absl::StrCat("cannot be combined with ", methods[0].first,
                                                            "; windows go with at most one positions method"));
  }
  if (!methods.empty()) extension.positions = methods.front().second;
  return extension;
}

absl::StatusOr<Extension> ConvertChecked(const v1::Extension& asked, const ModelManifest& model) {
  absl::StatusOr<Extension> extension = Convert(asked);
  if (!extension.ok()) return extension;
  if (absl::Status status = CheckExtension(model, *extension); !status.ok()) return status;
  return extension;
}

absl::StatusOr<v1::Extension> FromJson(const std::string& json) {
  v1::Extension extension;
  const auto status = google::protobuf::util::JsonStringToMessage(json, &extension);
  if (!status.ok()) return absl::InvalidArgumentError(std::string(status.message().data(), status.message().size()));
  if (extension.has_recommended() || !extension.profile().empty()) {
    return absl::InvalidArgumentError("refers to another extension; it must say itself what to do");
  }
  return extension;
}

// `recommended` and `profile` stand alone.
absl::Status CheckAlone(const v1::Extension& asked, const char* field) {
  std::vector<const google::protobuf::FieldDescriptor*> set;
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
  if (absl::Status status = CheckAlone(asked, "profile"); !status.ok()) return status;
  const auto found = profiles.find(asked.profile());
  if (found == profiles.end()) {
    std::vector<std::string> names;
    for (const auto& [name, extension] : profiles) names.push_back(name);
    return UnknownProfile(asked.profile(), names);
  }
  absl::StatusOr<Extension> extension = ConvertChecked(found->second, model);
  if (!extension.ok()) return ProfileDoesNotFit(asked.profile(), extension.status());
  return extension;
}

absl::StatusOr<Extension> ResolveRecommended(const v1::Extension& asked, v1::EmbedOptions::Output output,
                                             const ModelManifest& model) {
  if (absl::Status status = CheckAlone(asked, "recommended"); !status.ok()) return status;
  const absl::StatusOr<Recommendations> recommended = RecommendationsOf(model);
  if (!recommended.ok()) return recommended.status();
  if (output == v1::EmbedOptions::WINDOW_VECTORS && recommended->window_vectors.has_value()) {
    return ConvertChecked(*recommended->window_vectors, model);
  }
  return ConvertChecked(recommended->one_vector.value_or(v1::Extension()), model);
}

// One of a manifest's recommendations. Errors (INVALID_ARGUMENT) of its JSON and of what the model can do.
absl::StatusOr<std::optional<v1::Extension>> ReadRecommendation(const std::string& json, const ModelManifest& model) {
  if (json.empty()) return std::nullopt;
  absl::StatusOr<v1::Extension> extension = FromJson(json);
  if (!extension.ok()) return extension.status();
  if (const auto checked = ConvertChecked(*extension, model); !checked.ok()) return checked.status();
  return *std::move(extension);
}

v1::Method::Kind ConvertKind(MethodKind kind) {
  switch (kind) {
    case MethodKind::kPlain:
      return v1::Method::PLAIN;
    case MethodKind::kGrouped:
      return v1::Method::GROUPED;
    case MethodKind::kRecurrent:
      return v1::Method::RECURRENT;
    case MethodKind::kInterpolation:
      return v1::Method::INTERPOLATION;
    case MethodKind::kNtk:
      return v1::Method::NTK;
    case MethodKind::kNtkDynamic:
      return v1::Method::NTK_DYNAMIC;
    case MethodKind::kNtkByParts:
      return v1::Method::NTK_BY_PARTS;
    case MethodKind::kYarn:
      return v1::Method::YARN;
    case MethodKind::kSelfExtend:
      return v1::Method::SELF_EXTEND;
  }
  return v1::Method::PLAIN;
}

void FillMethod(const Method& method, v1::Method& message) {
  message.set_kind(ConvertKind(method.kind));
  if (method.factor != 1) message.set_factor(method.factor);
  if (method.kind == MethodKind::kNtk || method.kind == MethodKind::kNtkDynamic) message.set_base(method.base);
  if (method.kind == MethodKind::kSelfExtend) {
    message.set_group(static_cast<uint32_t>(method.group));
    message.set_neighbor_window(static_cast<uint32_t>(method.neighbour_window));
  }
  message.set_resonance(method.resonance);
  if (method.query_scale != 1) message.set_query_scale(method.query_scale);
}

}  // namespace

absl::StatusOr<Profiles> ParseProfiles(const std::map<std::string, std::string>& json) {
  Profiles profiles;
  for (const auto& [name, text] : json) {
    const auto bad = [&name = name](const absl::Status& status) {
      return absl::InvalidArgumentError(absl::StrCat("profiles.", name, ": ", status.message()));
    };
    absl::StatusOr<v1::Extension> extension = FromJson(text);
    if (!extension.ok()) return bad(extension.status());
    if (const auto converted = Convert(*extension); !converted.ok()) return bad(converted.status());
    profiles.emplace(name, *std::move(extension));
  }
  return profiles;
}

std::vector<std::string> ProfilesOf(const ModelManifest& model, const Profiles& profiles) {
  std::vector<std::string> names;
  for (const auto& [name, extension] : profiles) {
    if (ConvertChecked(extension, model).ok()) names.push_back(name);
  }
  return names;
}

absl::Status CheckProfiles(const Profiles& profiles, std::span<const ModelManifest* const> models) {
  for (const auto& [name, extension] : profiles) {
    const auto fits = [&](const ModelManifest* model) { return ConvertChecked(extension, *model).ok(); };
    if (std::ranges::any_of(models, fits)) continue;
    const absl::Status reason = ConvertChecked(extension, *models.front()).status();
    return absl::InvalidArgumentError(absl::StrCat("profiles.", name, " fits no model; ", reason.message()));
  }
  return absl::OkStatus();
}

absl::StatusOr<Recommendations> RecommendationsOf(const ModelManifest& manifest) {
  const auto bad = [&manifest](const char* key, absl::string_view what) {
    return ModelDirectoryError(manifest.name, absl::StrCat(key, " of its manifest: ", what));
  };
  auto one_vector = ReadRecommendation(manifest.recommended_extension, manifest);
  if (!one_vector.ok()) return bad("recommended_extension", one_vector.status().message());
  constexpr char kMultiVector[] = "recommended_multi_vector_extension";
  auto window_vectors = ReadRecommendation(manifest.recommended_multi_vector_extension, manifest);
  if (!window_vectors.ok()) return bad(kMultiVector, window_vectors.status().message());
  if (window_vectors->has_value() && !(*window_vectors)->has_windows()) {
    return bad(kMultiVector, "has no windows, and a text is to get a vector a window; add \"windows\"");
  }
  return Recommendations{*std::move(one_vector), *std::move(window_vectors)};
}

absl::StatusOr<Extension> ResolveExtension(const v1::Extension& asked, v1::EmbedOptions::Output output,
                                           const ModelManifest& model, const Profiles& profiles) {
  if (!asked.profile().empty()) return ResolveProfile(asked, model, profiles);
  if (asked.has_recommended()) return ResolveRecommended(asked, output, model);
  absl::StatusOr<Extension> extension = ConvertChecked(asked, model);
  if (!extension.ok()) return AtField(extension.status(), kField);
  return extension;
}

void FillRecommendations(const ModelManifest& manifest, v1::Model& model) {
  const absl::StatusOr<Recommendations> recommended = RecommendationsOf(manifest);
  if (!recommended.ok()) return;  // Loading refused the model.
  if (recommended->one_vector.has_value()) *model.mutable_recommended_extension() = *recommended->one_vector;
  if (recommended->window_vectors.has_value()) {
    *model.mutable_recommended_multi_vector_extension() = *recommended->window_vectors;
  }
  model.mutable_recommendation_evidence()->insert(manifest.recommendation_evidence.begin(),
                                                  manifest.recommendation_evidence.end());
}

void FillSequence(const PlannedSequence& planned, v1::Sequence& sequence) {
  sequence.set_tokens(static_cast<uint32_t>(planned.tokens));
  sequence.mutable_content()->set_start(static_cast<uint32_t>(planned.content.start));
  sequence.mutable_content()->set_end(static_cast<uint32_t>(planned.content.end));
  FillMethod(planned.method, *sequence.mutable_method());
}

}  // namespace longembed
