// Checks a list of extensions on three models: each recipe or error and, for several lengths, the output of Explain and
// the input of the encoder. The expected values are in tests/golden/extensions.txt. LONGEMBED_WRITE_GOLDEN=1 writes
// that file anew. A changed recipe invalidates every index that was built with the old one.
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "server/api/longembed/extension_converter.h"
#include "server/core/recipe.h"
#include "tests/testing/fake_tokenizer.h"

namespace longembed {
namespace {

const std::vector<std::string> kExtensions{
    R"({})",
    R"({"when": "ALWAYS"})",
    R"({"windows": {}})",
    R"({"windows": {"tokens": 40, "overlap": 7, "last": "SHORT", "aggregation": "TOKEN_WEIGHTED_MEAN"}})",
    R"({"windows": {"tokens": 64, "aggregation": "MAX"}, "when": "ALWAYS"})",
    R"({"windows": {"tokens": 65}})",
    R"({"windows": {"tokens": 2}})",
    R"({"windows": {"tokens": 20, "overlap": 18}})",
    R"({"windows": {"aggregation": "FIRST"}, "interpolation": {"factor": 4}})",
    R"({"windows": {"tokens": 300}, "grouped": {}})",
    R"({"windows": {}, "grouped": {}})",
    R"({"windows": {}, "self_extend": {"group": 4}})",
    R"({"windows": {}, "self_extend": {"group": 4, "neighbor_window": 16}})",
    R"({"windows": {}, "recurrent": {}})",
    R"({"windows": {}, "resonance": true})",
    R"({"grouped": {}})",
    R"({"grouped": {"factor": 1}})",
    R"({"grouped": {"factor": 3}, "attention_log_scaling": true})",
    R"({"grouped": {"factor": 0}})",
    R"({"grouped": {"factor": 70000}})",
    R"({"grouped": {}, "resonance": true})",
    R"({"recurrent": {}})",
    R"({"recurrent": {}, "attention_log_scaling": true, "when": "ALWAYS"})",
    R"({"recurrent": {}, "resonance": true})",
    R"({"interpolation": {}})",
    R"({"interpolation": {"factor": 1}})",
    R"({"interpolation": {"factor": 2.5}, "attention_log_scaling": true})",
    R"({"interpolation": {"factor": 1.16}})",
    R"({"interpolation": {"factor": 0.5}})",
    R"({"interpolation": {"factor": "NaN"}})",
    R"({"interpolation": {}, "resonance": true})",
    R"({"ntk": {}})",
    R"({"ntk": {"base": 30000, "factor": 2}})",
    R"({"ntk": {"base": 30000}})",
    R"({"ntk": {"base": 10000}, "when": "ALWAYS"})",
    R"({"ntk": {"base": 1}})",
    R"({"ntk": {"base": 2e12}})",
    R"({"ntk": {"factor": 4}})",
    R"({"ntk": {"factor": 1}})",
    R"({"ntk": {"factor": 0}})",
    R"({"ntk": {"factor": 2}, "resonance": true, "attention_log_scaling": true, "when": "ALWAYS"})",
    R"({"ntk_dynamic": {}})",
    R"({"ntk_dynamic": {"factor": 2}})",
    R"({"ntk_dynamic": {"factor": 0.9}})",
    R"({"ntk_dynamic": {}, "resonance": true})",
    R"({"ntk_by_parts": {}})",
    R"({"ntk_by_parts": {"factor": 4, "beta_fast": 8, "beta_slow": 2}})",
    R"({"ntk_by_parts": {"factor": 4, "beta_fast": 1e7}})",
    R"({"ntk_by_parts": {"beta_fast": 2, "beta_slow": 3}})",
    R"({"ntk_by_parts": {"beta_slow": 0}})",
    R"({"ntk_by_parts": {"factor": 65537}})",
    R"({"ntk_by_parts": {}, "resonance": true})",
    R"({"yarn": {}})",
    R"({"yarn": {"factor": 4}})",
    R"({"yarn": {"factor": 4, "beta_fast": 8, "beta_slow": 2}, "attention_log_scaling": true})",
    R"({"yarn": {"beta_fast": 0}})",
    R"({"yarn": {"beta_slow": 1e9}})",
    R"({"yarn": {"factor": 2}, "resonance": true})",
    R"({"self_extend": {}})",
    R"({"self_extend": {"group": 4}})",
    R"({"self_extend": {"neighbor_window": 16}})",
    R"({"self_extend": {"group": 4, "neighbor_window": 16}, "attention_log_scaling": true})",
    R"({"self_extend": {"group": 1}})",
    R"({"self_extend": {"group": 1, "neighbor_window": 16}})",
    R"({"self_extend": {"group": 4, "neighbor_window": 64}})",
    R"({"self_extend": {"neighbor_window": 0}})",
    R"({"self_extend": {}, "resonance": true})",
    R"({"shifted_rotary": {}})",
    R"({"shifted_rotary": {}, "when": "ALWAYS"})",
    R"({"shifted_rotary": {"shift_from": 64, "local_window": 0}, "attention_log_scaling": true})",
    R"({"shifted_rotary": {"shift_from": 0}})",
    R"({"shifted_rotary": {"shift_from": 65}})",
    R"({"shifted_rotary": {"shift_from": 16, "local_window": 16}})",
    R"({"shifted_rotary": {"local_window": 21}})",
    R"({"shifted_rotary": {}, "resonance": true})",
    R"({"windows": {}, "shifted_rotary": {"shift_from": 32, "local_window": 8}})",
    R"({"grouped": {}, "yarn": {}})",
    R"({"interpolation": {}, "recurrent": {}, "self_extend": {}})",
    R"({"resonance": true})",
    R"({"attention_log_scaling": true})",
    R"({"resonance": true, "attention_log_scaling": true, "when": "ALWAYS"})",
    R"({"attention_temperature": 1})",
    R"({"attention_temperature": 0.5, "attention_log_scaling": true})",
    R"({"attention_temperature": 0.8, "yarn": {}, "when": "ALWAYS"})",
    R"({"windows": {"aggregation": "NORM_WEIGHTED"}})",
    R"({"windows": {"aggregation": "NORM_WEIGHTED", "norm_temperature": 1}})",
    R"({"windows": {"aggregation": "NORM_WEIGHTED", "norm_temperature": 0.5}})",
    R"({"windows": {"aggregation": "NORM_WEIGHTED", "norm_temperature": 0}})",
    R"({"windows": {"aggregation": "NORM_WEIGHTED", "norm_temperature": "NaN"}})",
    R"({"windows": {"norm_temperature": 1}})",
    R"({"windows": {"aggregation": "TOP_NORM"}})",
    R"({"windows": {"aggregation": "TOP_NORM", "top": 3}})",
    R"({"windows": {"aggregation": "TOP_NORM", "top": 5}})",
    R"({"windows": {"aggregation": "TOP_NORM", "top": 0}})",
    R"({"windows": {"aggregation": "NORM_WEIGHTED", "top": 3}})",
    R"({"windows": {"vectors": 8}})",
    R"({"windows": {"vectors": 0}})",
    R"({"dual_chunk": {}})",
    R"({"dual_chunk": {"chunk": 20}})",
    R"({"dual_chunk": {"chunk": 40, "local_window": 24}, "attention_log_scaling": true, "when": "ALWAYS"})",
    R"({"dual_chunk": {"chunk": 41, "local_window": 24}})",
    R"({"dual_chunk": {"local_window": 8}, "attention_calibration": {}})",
    R"({"attention_calibration": {}})",
    R"({"attention_calibration": {"strength": 0}, "grouped": {}})",
    R"({"attention_calibration": {"strength": 1, "basket": 32, "layers": 0.25}, "windows": {}, "when": "ALWAYS"})",
    R"({"attention_calibration": {"basket": 100}, "interpolation": {}})",
};

std::vector<ModelManifest> Models() {
  ModelManifest table = FakeManifest(), tuned = FakeManifest(), rotary = FakeRopeManifest();
  for (ModelManifest* model : {&table, &tuned, &rotary}) model->trained_window = model->plain_limit = 64;
  table.position_rows = 64;
  tuned.position_stride = 4;
  tuned.position_rows = tuned.plain_limit = 256;
  rotary.plain_limit = 100;
  table.name = "table";
  tuned.name = "tuned";
  rotary.name = "rotary";
  return {table, tuned, rotary};
}

// Formats a number so that the text does not depend on a machine's rounding.
std::string Rounded(double value) { return absl::StrFormat("%.5g", value == 0 ? 0 : value); }

std::string Describe(const RotaryTable& table, int64_t n) {
  std::string text;
  for (const int64_t row : {int64_t{1}, n / 2, n - 1}) {
    const auto last = static_cast<size_t>((row + 1) * table.width - 1), first = static_cast<size_t>(row * table.width);
    absl::StrAppend(&text, " ", row, ":",
                    absl::StrFormat("%.4f,%.4f,%.4f", table.sin[first], table.sin[last - 1], table.cos[last]));
  }
  return text;
}

std::string Describe(const PlannedSequence& planned) {
  v1::Sequence shown;
  FillSequence(planned, shown);
  v1::Method& method = *shown.mutable_method();
  if (method.has_factor()) method.set_factor(std::stod(Rounded(method.factor())));
  if (method.has_base()) method.set_base(std::stod(Rounded(method.base())));
  if (method.has_query_scale()) method.set_query_scale(std::stod(Rounded(method.query_scale())));
  std::string text;
  EXPECT_TRUE(google::protobuf::util::MessageToJsonString(shown, &text).ok());
  const Sequence& sequence = planned.sequence;
  const int64_t n = sequence.size();
  absl::StrAppend(&text, " scale ", Rounded(sequence.query_scale), " w ", sequence.neighbor_window);
  if (sequence.chunk > 0) absl::StrAppend(&text, " chunk ", sequence.chunk);
  if (const SequenceCalibration& c = sequence.calibration; c.basket > 0) {
    absl::StrAppend(&text, " calibrated ", c.rows.start, "-", c.rows.end, " from layer ", c.first_layer,
                    " by baskets of ", c.basket, " but ", c.apart);
  }
  if (!sequence.positions.empty()) absl::StrAppend(&text, " rows");
  for (const int64_t p : {int64_t{1}, n / 2, n - 1}) {
    if (!sequence.positions.empty()) absl::StrAppend(&text, " ", Rounded(sequence.positions[static_cast<size_t>(p)]));
  }
  if (sequence.rotary != nullptr) absl::StrAppend(&text, " rotary", Describe(*sequence.rotary, n));
  if (sequence.rotary_grouped != nullptr) absl::StrAppend(&text, " grouped", Describe(*sequence.rotary_grouped, n));
  if (sequence.rotary_shifted != nullptr) absl::StrAppend(&text, " shifted", Describe(*sequence.rotary_shifted, n));
  return text;
}

void DescribePlans(const ModelManifest& model, const Extension& extension, std::string& text) {
  RotaryTableCache tables;
  for (const int tokens : {50, 64, 65, 150, 512}) {
    const std::vector<int32_t> content(static_cast<size_t>(tokens) - 2, 5);
    const auto plan = PlanInput(model, {.content = content}, {.extension = extension}, tables);
    if (!plan.ok()) {
      absl::StrAppend(&text, "    ", tokens, ": ", plan.status().message(), "\n");
      continue;
    }
    absl::StrAppend(&text, "    ", tokens, ": ", plan->sequences.size(), " of ", plan->capacity, "; ",
                    Describe(plan->sequences.back()), "\n");
  }
}

std::string DescribeAll() {
  std::string text;
  for (const std::string& json : kExtensions) {
    absl::StrAppend(&text, json, "\n");
    v1::Extension asked;
    EXPECT_TRUE(google::protobuf::util::JsonStringToMessage(json, &asked).ok()) << json;
    for (const ModelManifest& model : Models()) {
      const absl::StatusOr<Extension> extension = ResolveExtension(asked, v1::EmbedOptions::ONE_VECTOR, model, {});
      if (!extension.ok()) {
        absl::StrAppend(&text, "  ", model.name, ": ", extension.status().message(), "\n");
        continue;
      }
      const RecipeOptions options{.extension = *extension, .dimensions = 4, .encoding = "FLOAT32"};
      absl::StrAppend(&text, "  ", model.name, " ", Recipe(model, options), "\n");
      DescribePlans(model, *extension, text);
    }
  }
  return text;
}

TEST(ExtensionGoldenTest, RecipesPlansAndErrorsDoNotChange) {
  const std::string text = DescribeAll();
  if (std::getenv("LONGEMBED_WRITE_GOLDEN") != nullptr) std::ofstream(LONGEMBED_GOLDEN_EXTENSIONS) << text;
  std::ifstream file(LONGEMBED_GOLDEN_EXTENSIONS);
  std::stringstream golden;
  golden << file.rdbuf();
  const std::vector<std::string> now = absl::StrSplit(text, '\n'), before = absl::StrSplit(golden.str(), '\n');
  ASSERT_EQ(now.size(), before.size());
  for (size_t line = 0; line < now.size(); ++line) EXPECT_EQ(now[line], before[line]) << "line " << line + 1;
}

}  // namespace
}  // namespace longembed
