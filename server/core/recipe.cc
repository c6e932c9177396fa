#include "server/core/recipe.h"

#include <nlohmann/json.hpp>
#include <variant>

#include "model/manifest/sha256.h"

namespace longembed {
namespace {

using nlohmann::json;

const char* NameOf(Truncate truncate) {
  switch (truncate) {
    case Truncate::kNone:
      return "NONE";
    case Truncate::kEnd:
      return "END";
    case Truncate::kStart:
      return "START";
  }
  return "";
}

const char* NameOf(Aggregation aggregation) {
  switch (aggregation) {
    case Aggregation::kMean:
      return "MEAN";
    case Aggregation::kTokenWeightedMean:
      return "TOKEN_WEIGHTED_MEAN";
    case Aggregation::kMax:
      return "MAX";
    case Aggregation::kFirst:
      return "FIRST";
  }
  return "";
}

const char* NameOf(Pooling pooling) {
  switch (pooling) {
    case Pooling::kMean:
      return "MEAN";
    case Pooling::kCls:
      return "CLS";
    case Pooling::kLast:
      return "LAST";
    case Pooling::kNone:
      return "NONE";
  }
  return "";
}

template <typename Number>
json OrAdaptive(const std::optional<Number>& number) {
  return number.has_value() ? json(*number) : json("adaptive");
}

struct MethodToJson {
  json operator()(const PlainPositions&) const { return json::object(); }
  json operator()(const Grouped& m) const { return {{"grouped", {{"factor", OrAdaptive(m.factor)}}}}; }
  json operator()(const Recurrent&) const { return {{"recurrent", json::object()}}; }
  json operator()(const Interpolation& m) const { return {{"interpolation", {{"factor", OrAdaptive(m.factor)}}}}; }
  json operator()(const Ntk& m) const {
    return m.base.has_value() ? json{{"ntk", {{"base", *m.base}}}} : json{{"ntk", {{"factor", *m.factor}}}};
  }
  json operator()(const NtkDynamic& m) const { return {{"ntk_dynamic", {{"factor", m.factor}}}}; }
  json operator()(const NtkByParts& m) const { return {{"ntk_by_parts", ByParts(m)}}; }
  json operator()(const Yarn& m) const { return {{"yarn", ByParts(m)}}; }
  json operator()(const SelfExtend& m) const {
    return {{"self_extend", {{"group", OrAdaptive(m.group)}, {"neighbor_window", OrAdaptive(m.neighbour_window)}}}};
  }
  template <typename M>
  static json ByParts(const M& m) {
    return {{"factor", OrAdaptive(m.factor)}, {"beta_fast", m.beta_fast}, {"beta_slow", m.beta_slow}};
  }
};

// Everything that the extension means, defaults filled in; {} for one that changes nothing.
json ToJson(const ModelManifest& model, const Extension& extension) {
  json result = std::visit(MethodToJson(), extension.positions);
  if (extension.windows.has_value()) {
    const Windows& windows = *extension.windows;
    result["windows"] = {{"tokens", WindowTokens(model, extension)},
                         {"overlap", windows.overlap},
                         {"last", windows.last == LastWindow::kShort ? "SHORT" : "BACK_EXTENDED"},
                         {"aggregation", NameOf(windows.aggregation)}};
  }
  if (extension.resonance) result["resonance"] = true;
  if (extension.attention_log_scaling) result["attention_log_scaling"] = true;
  if (!result.empty()) result["when"] = extension.when == When::kAlways ? "ALWAYS" : "LONG";
  return result;
}

// What the manifest says that shapes vectors; encoder.pt and tokenizer.json do not say it.
json ToJson(const ModelManifest& model) {
  json result{{"family", model.family == Family::kApe ? "APE" : "ROPE"},
              {"plain_limit", model.plain_limit},
              {"pooling", NameOf(model.pooling)},
              {"position_stride", model.position_stride},
              {"rotary_base", model.rotary_base},
              {"rotary_dim", model.rotary_dim},
              {"special_prefix", model.special_prefix},
              {"special_suffix", model.special_suffix},
              {"trained_window", model.trained_window}};
  if (model.rotary_factor != 1) result["rotary_factor"] = model.rotary_factor;
  return result;
}

}  // namespace

std::string Recipe(const ModelManifest& model, const RecipeOptions& options) {
  json recipe{{"dimensions", options.dimensions},
              {"encoding", options.encoding},
              {"extension", ToJson(model, options.extension)},
              {"files", model.file_sha256},
              {"model", ToJson(model)},
              {"normalize", options.normalize},
              {"plan_version", kPlanVersion},
              {"precision", PrecisionName(options.precision)},
              {"truncate", NameOf(options.truncate)}};
  if (options.sparse) recipe["sparse"] = {{"max_terms", options.max_terms.value_or(0)}};
  return Sha256(recipe.dump()).substr(0, 32);  // nlohmann::json keeps keys sorted.
}

}  // namespace longembed
