#include "model/embed/pipeline.h"

#include "model/errors/errors.h"
#include "model/text/prompt.h"

namespace longembed {
namespace {

absl::StatusOr<Plan> PrepareText(const Model& model, std::string_view text, const InputOptions& options) {
  const absl::StatusOr<PromptedTokens> tokens = TokenizeWithPrompt(*model.tokenizer, options.prompt, text);
  if (!tokens.ok()) return tokens.status();
  return PlanInput(model.manifest, {.prompt = tokens->prompt, .content = tokens->content}, options.plan);
}

absl::StatusOr<std::vector<int32_t>> CheckedIds(const Model& model, std::span<const uint32_t> ids) {
  std::vector<int32_t> checked;
  checked.reserve(ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= static_cast<uint32_t>(model.manifest.vocabulary_size)) {
      return TokenIdOutOfRange(i, ids[i], model.manifest.vocabulary_size);
    }
    checked.push_back(static_cast<int32_t>(ids[i]));
  }
  return checked;
}

absl::StatusOr<Plan> PrepareIds(const Model& model, const TokenIds& input, const InputOptions& options) {
  const absl::StatusOr<std::vector<int32_t>> content = CheckedIds(model, input.ids);
  if (!content.ok()) return content.status();
  std::vector<int32_t> prompt;
  if (!input.complete && !options.prompt.empty()) {
    absl::StatusOr<TokenizedText> tokens = model.tokenizer->Tokenize(options.prompt);
    if (!tokens.ok()) return tokens.status();
    prompt = std::move(tokens->ids);
  }
  return PlanInput(model.manifest, {.prompt = prompt, .content = *content, .complete = input.complete}, options.plan);
}

}  // namespace

absl::StatusOr<Plan> PrepareInput(const Model& model, const Input& input, const InputOptions& options) {
  if (const auto* text = std::get_if<std::string_view>(&input)) return PrepareText(model, *text, options);
  return PrepareIds(model, std::get<TokenIds>(input), options);
}

absl::StatusOr<std::vector<float>> FinishVector(std::span<const float> row, const VectorOptions& options) {
  const std::span<const float> kept = row.first(options.dimensions);
  std::vector<float> vector(kept.begin(), kept.end());
  if (options.normalize) {
    if (const absl::Status status = Normalize(vector); !status.ok()) return status;
  } else if (!AllFinite(vector)) {
    return UnusableVector();
  }
  return vector;
}

}  // namespace longembed
