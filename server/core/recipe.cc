#include "server/core/recipe.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "model/manifest/sha256.h"
#include "model/plan/extension_json.h"

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

// Returns the manifest's keys that shape vectors and are not part of encoder.pt or tokenizer.json.
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
  if (const std::optional<RotaryScaling>& scaling = model.rotary_scaling; scaling.has_value()) {
    result["rotary_scaling"] = {{"amplitude", scaling->amplitude},
                                {"factors", scaling->factors},
                                {"long_factors", scaling->long_factors},
                                {"long_from", scaling->long_from}};
  }
  if (const std::optional<TokenVectorSettings>& tokens = model.token_vectors; tokens.has_value()) {
    result["token_vectors"] = {{"expansion_attended", tokens->expansion_attended},
                               {"expansion_token", tokens->expansion_token},
                               {"expansion_tokens", tokens->expansion_tokens},
                               {"query_tokens", tokens->query_tokens},
                               {"skipped_tokens", tokens->skipped_tokens}};
  }
  return result;
}

}  // namespace

std::optional<int64_t> LimitThatCuts(const ModelManifest& model, const PlanOptions& options) {
  const int64_t limit = options.limits.max_sequence_tokens;
  const bool in_windows = options.extension.windows.has_value();
  if (in_windows ? options.extension.when == When::kAlways : options.truncate == Truncate::kNone) return std::nullopt;
  // The longest sequence on a server without a limit. Windows leave texts within Lo whole.
  const int64_t longest =
      in_windows ? model.trained_window
                 : SequenceCapacity(model, options.extension).value_or(std::numeric_limits<int64_t>::max());
  return std::min(longest, options.max_tokens.value_or(longest)) > limit ? std::optional(limit) : std::nullopt;
}

std::string Recipe(const ModelManifest& model, const RecipeOptions& options) {
  json recipe{{"dimensions", options.dimensions},
              {"encoding", options.encoding},
              {"extension", CanonicalJson(model, options.extension)},
              {"files", model.file_sha256},
              {"model", ToJson(model)},
              {"normalize", options.normalize},
              {"plan_version", kPlanVersion},
              {"precision", PrecisionName(options.precision)},
              {"truncate", NameOf(options.truncate)}};
  if (options.max_tokens.has_value()) recipe["max_tokens"] = *options.max_tokens;
  if (options.max_sequence_tokens.has_value()) recipe["max_sequence_tokens"] = *options.max_sequence_tokens;
  if (options.spans && model.pooling != Pooling::kMean) recipe["spans"] = true;
  if (options.sparse) recipe["sparse"] = {{"max_terms", options.max_terms.value_or(0)}};
  if (options.sparse && model.sparse_head == SparseHeadKind::kSpladeSum) recipe["sparse"]["head"] = "SPLADE_SUM";
  if (options.token_pooling != 1) recipe["token_pooling"] = options.token_pooling;
  return Sha256(recipe.dump()).substr(0, 32);  // nlohmann::json keeps keys sorted.
}

}  // namespace longembed
