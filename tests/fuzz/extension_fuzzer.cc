// Fuzzes extensions. The first line of the input is LENGTH, a number of tokens; the rest is the JSON of a
// longembed.v1.Extension. The JSON is used as a profile of the server's configuration, as the extension of a request,
// and as a recommendation of a manifest. Each is checked against a model of each family and planned for a text of
// LENGTH tokens.
#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "model/plan/extension_json.h"
#include "model/plan/recommendations.h"
#include "server/api/longembed/extension_converter.h"
#include "tests/fuzz/expect.h"
#include "tests/fuzz/message_mutator.h"
#include "tests/fuzz/plan_invariants.h"
#include "tests/testing/fake_tokenizer.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace longembed {
namespace {

constexpr int kMaxTokens = 2000;
constexpr auto kOneVector = v1::EmbedOptions::ONE_VECTOR;

struct Parts {
  int tokens = 40;
  std::string json;
};

Parts Split(std::string_view input) {
  Parts parts{.json = std::string(input)};
  const size_t line = input.find('\n');
  if (line == std::string_view::npos) return parts;
  std::from_chars(input.data(), input.data() + line, parts.tokens);
  parts.tokens = std::clamp(parts.tokens, 1, kMaxTokens);
  parts.json = input.substr(line + 1);
  return parts;
}

void Plan(const ModelManifest& model, const Extension& extension, int tokens) {
  const PlanOptions options{
      .truncate = Truncate::kEnd,
      .extension = extension,
      .limits = {.max_sequence_tokens = 1 << 10, .max_run_tokens = 1 << 16, .max_vectors = 1 << 10}};
  const std::vector<int32_t> content(static_cast<size_t>(tokens), 20);
  RotaryTableCache tables;
  const auto plan = PlanInput(model, {.content = content}, options, tables);
  if (!plan.ok()) return ExpectRefusal(plan.status());
  ExpectPlan(model, options, 2, *plan);
}

void ExpectResolved(const absl::StatusOr<Extension>& extension, const ModelManifest& model, int tokens) {
  if (!extension.ok()) return ExpectRefusal(extension.status());
  FUZZ_EXPECT(CheckExtension(model, *extension).ok());
  Plan(model, *extension, tokens);
}

// Checks the JSON as either recommendation of a manifest. `extension` is the resolved JSON, or null if the model does
// not support it.
void ExpectRecommended(ModelManifest model, const std::string& json, const Extension* extension) {
  model.recommended_extension = json;
  const bool windows = extension != nullptr && extension->windows.has_value();
  const bool groups = windows && extension->windows->vectors.has_value();
  FUZZ_EXPECT(RecommendationsOf(model).ok() == (extension != nullptr && !groups));
  model.recommended_extension.clear();
  model.recommended_multi_vector_extension = json;
  FUZZ_EXPECT(RecommendationsOf(model).ok() == windows);
}

void Run(const Parts& parts) {
  const absl::StatusOr<Profiles> profiles = ParseProfiles({{"name", parts.json}});
  FUZZ_EXPECT(profiles.ok() || !profiles.status().message().empty());
  v1::Extension asked;
  const bool is_json = google::protobuf::util::JsonStringToMessage(parts.json, &asked).ok();
  for (ModelManifest model : {FakeManifest(), FakeRopeManifest()}) {
    const Profiles known = profiles.ok() ? *profiles : Profiles();
    if (is_json) ExpectResolved(ResolveExtension(asked, kOneVector, model, known), model, parts.tokens);
    if (!profiles.ok()) continue;
    v1::Extension by_name;
    by_name.set_profile("name");
    const absl::StatusOr<Extension> resolved = ResolveExtension(by_name, kOneVector, model, known);
    ExpectResolved(resolved, model, parts.tokens);
    if (is_json && resolved.ok()) {
      const absl::StatusOr<Extension> direct = ResolveExtension(asked, kOneVector, model, {});
      FUZZ_EXPECT(direct.ok() && CanonicalJson(model, *direct) == CanonicalJson(model, *resolved));
    }
    FUZZ_EXPECT((ProfilesOf(model, known).size() == 1) == resolved.ok());
    ExpectRecommended(model, parts.json, resolved.ok() ? &*resolved : nullptr);
  }
}

}  // namespace
}  // namespace longembed

// Runs without protobuf's log (quiet_protobuf.cc), which would have a line for each string that is not UTF-8.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  longembed::Run(longembed::Split({reinterpret_cast<const char*>(data), size}));
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  std::minstd_rand random(seed);
  longembed::Parts parts = longembed::Split({reinterpret_cast<const char*>(data), size});
  longembed::v1::Extension extension;
  if (random() % 3 == 0 || !google::protobuf::util::JsonStringToMessage(parts.json, &extension).ok()) {
    return LLVMFuzzerMutate(data, size, max_size);
  }
  for (size_t i = 0; i <= random() % 3; ++i) longembed::MutateMessage(extension, random);
  if (random() % 4 == 0) parts.tokens = 1 + static_cast<int>(random() % 200);
  std::string json, changed = std::to_string(parts.tokens) + "\n";
  if (!google::protobuf::util::MessageToJsonString(extension, &json).ok())
    return LLVMFuzzerMutate(data, size, max_size);
  changed += json;
  if (changed.size() > max_size) return LLVMFuzzerMutate(data, size, max_size);
  std::memcpy(data, changed.data(), changed.size());
  return changed.size();
}
