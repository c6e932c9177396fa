// Fuzzes the text of a longembed-model.yaml. Whatever ParseManifest accepts must be consistent, and it must be possible
// to plan a short text for it.
#include <cstdint>
#include <string>
#include <string_view>

#include "model/errors/errors.h"
#include "model/manifest/manifest.h"
#include "model/plan/planner.h"
#include "tests/fuzz/expect.h"
#include "tests/fuzz/plan_invariants.h"

namespace longembed {
namespace {

constexpr int kMaxOverhead = 1000, kMaxRotaryDim = 4096;  // Larger models are not planned, for speed.

void ExpectSizes(const ModelManifest& model) {
  for (const int size : {model.vocabulary_size, model.hidden_size, model.layers, model.intermediate_size,
                         model.attention_heads, model.key_value_heads, model.head_dim}) {
    FUZZ_EXPECT(size >= 1);
  }
  FUZZ_EXPECT(model.attention_heads % model.key_value_heads == 0);
  FUZZ_EXPECT(model.local_layers >= 0 && model.local_layers <= model.layers && model.local_window >= 0);
  FUZZ_EXPECT(model.trained_window >= 2 && model.trained_window <= model.plain_limit);
  FUZZ_EXPECT(!model.trained_dimensions.empty() && model.trained_dimensions.back() == model.vector_size);
  for (const int dimensions : model.trained_dimensions) FUZZ_EXPECT(dimensions >= 1);
}

void ExpectPositions(const ModelManifest& model) {
  if (model.family == Family::kApe) {
    FUZZ_EXPECT(model.position_stride >= 1 && model.plain_limit <= model.position_rows);
    FUZZ_EXPECT(int64_t{model.trained_window} * model.position_stride <= model.position_rows);
  } else {
    FUZZ_EXPECT(model.rotary_dim >= 4 && model.rotary_dim % 2 == 0 && model.rotary_dim <= model.head_dim);
    FUZZ_EXPECT(model.rotary_base > 1 && model.rotary_base <= 1e12);
    FUZZ_EXPECT(model.rotary_factor >= 1e-3 && model.rotary_factor <= 1e3);
  }
}

void ExpectTokensAndPrompts(const ModelManifest& model) {
  for (const auto* ids : {&model.special_prefix, &model.special_suffix}) {
    for (const int32_t id : *ids) FUZZ_EXPECT(id >= 0 && id < model.vocabulary_size);
  }
  FUZZ_EXPECT(model.special_prefix.size() + model.special_suffix.size() < static_cast<size_t>(model.plain_limit));
  for (const auto& [type, prompt] : model.input_types) FUZZ_EXPECT(model.prompts.contains(prompt));
  FUZZ_EXPECT(model.default_prompt_name.empty() || model.prompts.contains(model.default_prompt_name));
}

void PlanOneToken(const ModelManifest& model) {
  const auto overhead = static_cast<int64_t>(model.special_prefix.size() + model.special_suffix.size());
  if (overhead > kMaxOverhead || model.rotary_dim > kMaxRotaryDim) return;
  const int32_t content[] = {0};
  RotaryTableCache tables;
  const auto plan = PlanInput(model, {.content = content}, {}, tables);
  FUZZ_EXPECT(plan.ok());
  ExpectPlan(model, {}, overhead, *plan);
}

}  // namespace
}  // namespace longembed

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace longembed;
  const std::string yaml(reinterpret_cast<const char*>(data), size);
  const auto model = ParseManifest(yaml, "here");
  if (!model.ok()) {
    FUZZ_EXPECT(model.status().code() == absl::StatusCode::kFailedPrecondition);
    FUZZ_EXPECT(std::string_view(model.status().message().data(), model.status().message().size()).find("here") !=
                std::string_view::npos);
    return 0;
  }
  ExpectSizes(*model);
  ExpectPositions(*model);
  ExpectTokensAndPrompts(*model);
  PlanOneToken(*model);
  return 0;
}
