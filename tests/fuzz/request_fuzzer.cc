// Fuzzes the bytes of a longembed.v1.EmbedRequest, as they arrive from the network. The request is parsed and resolved
// against a model of each family. Its inputs are tokenized and planned under small limits. Made-up vectors are finished
// and packed into the answer.
#include <grpcpp/support/byte_buffer.h>

#include <cstring>
#include <random>
#include <string>

#include "model/text/hf_tokenizer.h"
#include "model/text/utf8.h"
#include "server/api/longembed/answer_converter.h"
#include "server/api/longembed/request_converter.h"
#include "server/core/call_preparer.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/wire.h"
#include "tests/fuzz/expect.h"
#include "tests/fuzz/message_mutator.h"
#include "tests/fuzz/plan_invariants.h"
#include "tests/testing/fake_encoder.h"
#include "tests/testing/fake_tokenizer.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace longembed {
namespace {

constexpr int64_t kMaxRequestBytes = 1 << 16;
constexpr size_t kMaxTrailerBytes = 6000;  // Size before base64 encoding. A client accepts 8 KiB.

const LimitsConfig& Limits() {
  static const LimitsConfig limits{.max_request_bytes = kMaxRequestBytes,
                                   .max_inputs_per_call = 8,
                                   .max_tokens_per_input = 300,
                                   .max_tokens_per_sequence = 200,
                                   .max_run_tokens_per_call = 2000,
                                   .max_vectors_per_call = 50,
                                   .max_prompt_bytes = 100};
  return limits;
}

// Two models: one with rotary positions and a tokenizer that accepts anything, and one with a position table and a real
// tokenizer.
class Models {
 public:
  Models() {
    ModelManifest table = FakeManifest();
    table.recommended_extension = R"({"windows": {"tokens": 8}})";
    table.recommended_multi_vector_extension = R"({"windows": {"tokens": 6, "overlap": 1}})";
    auto tokenizer = LoadHuggingFaceTokenizer(LONGEMBED_GOLDEN_DIR "/tokenizer/wordpiece.json");
    FUZZ_EXPECT(tokenizer.ok());
    Add(table, *std::move(tokenizer));
    Add(FakeRopeManifest(), std::make_unique<FakeTokenizer>());
  }

  const ModelRegistry& registry() const { return registry_; }

 private:
  void Add(const ModelManifest& manifest, std::unique_ptr<const Tokenizer> tokenizer) {
    auto model = std::make_unique<const Model>(Model{.manifest = manifest, .tokenizer = std::move(tokenizer)});
    auto served = std::make_unique<ServedModel>(manifest.name, std::move(model), std::make_unique<FakeEncoder>(),
                                                Device{scheduler_, admission_}, ServedModelOptions{}, metrics_);
    FUZZ_EXPECT(registry_.Add(std::move(served)).ok());
  }

  RealClock clock_;
  // Declared before the scheduler, whose jobs return their admission when they are destroyed.
  Admission admission_{{}, clock_};
  Scheduler scheduler_{{.workers = 1}, clock_};
  Metrics metrics_{{}};
  ModelRegistry registry_;
};

const Profiles& KnownProfiles() {
  static const Profiles profiles = *ParseProfiles({{"highest", R"({"windows": {"tokens": 6, "aggregation": "MAX"}})"},
                                                   {"groups", R"({"windows": {"tokens": 6, "vectors": 2}})"},
                                                   {"rotary", R"({"yarn": {}, "when": "ALWAYS"})"}});
  return profiles;
}

// Checks a refusal, and that its encoded gRPC status fits into a trailer.
void ExpectRefused(const absl::Status& status) {
  ExpectRefusal(status);
  const grpc::Status answer = ToGrpcStatus(status);
  FUZZ_EXPECT(answer.error_message().size() + answer.error_details().size() <= kMaxTrailerBytes);
  google::rpc::Status details;
  FUZZ_EXPECT(details.ParseFromString(answer.error_details()) && !details.details().empty());
}

// Returns made-up vectors. One in a hundred is zero, which normalization refuses.
std::vector<std::vector<float>> MadeUpVectors(int64_t count) {
  std::vector<std::vector<float>> vectors;
  for (int64_t i = 0; i < count; ++i) {
    const auto value = static_cast<float>((i + 1) % 100);
    vectors.push_back({value, -value, value / 2, value * 1e-30f});
  }
  return vectors;
}

void Answer(Plan plan, const ResolvedOptions& options) {
  absl::StatusOr<EmbeddedInput> embedded = EmbeddedInput();
  auto vectors = FinishVectors(plan, MadeUpVectors(plan.rows()), options.vector);
  if (vectors.ok()) {
    FUZZ_EXPECT(!options.several_vectors ? vectors->size() == 1
                                         : static_cast<int64_t>(vectors->size()) == CountVectors(plan, options.vector));
    FUZZ_EXPECT(static_cast<int64_t>(vectors->size()) <= options.vector.windows.vectors.value_or(plan.vectors()));
    embedded->vectors = *std::move(vectors);
    embedded->plan = std::move(plan);
  } else {
    embedded = vectors.status();
  }
  v1::EmbedResult result, read;
  FillResult(embedded, options, result);
  FUZZ_EXPECT(read.ParseFromString(result.SerializeAsString()));
  for (const v1::Embedding& embedding : result.embeddings()) {
    FUZZ_EXPECT(embedding.dimensions() == static_cast<uint32_t>(options.vector.dimensions));
    FUZZ_EXPECT(embedding.values().empty() != embedding.packed().empty());
  }
}

// Returns the number of special and prompt tokens of the first sequence. It is 0 for complete ids, which the plan
// counts as content.
int64_t Overhead(const Model& model, const Input& input, const Plan& plan) {
  const auto* ids = std::get_if<TokenIds>(&input.content);
  if (ids != nullptr && ids->complete) return 0;
  const int64_t whole = plan.sequences.front().tokens - plan.sequences.front().content.size();
  const auto specials =
      static_cast<int64_t>(model.manifest.special_prefix.size() + model.manifest.special_suffix.size());
  FUZZ_EXPECT(whole >= specials);  // Tokens beyond the special tokens belong to the prompt.
  return whole;
}

void PlanInputs(const Model& model, const ResolvedOptions& options, const std::vector<absl::StatusOr<Input>>& inputs) {
  Ledger ledger(int64_t{1} << 40);
  const std::unique_ptr<Charge> charge = ledger.BeginMessage("client");
  CallPreparer preparer(model, options.input, *charge);
  int64_t vectors = 0, tokens = 0;
  for (const absl::StatusOr<Input>& input : inputs) {
    absl::StatusOr<longembed::Plan> plan = preparer.Prepare(input);
    if (!plan.ok()) {
      ExpectRefused(plan.status());
      if (!preparer.call_status().ok()) return;
      continue;
    }
    ExpectPlan(model.manifest, options.input.plan, Overhead(model, *input, *plan), *plan);
    vectors += plan->vectors();
    tokens += plan->run_tokens();
    v1::ExplainResult explanation;
    FillExplanation(*plan, options.vector, model.manifest, explanation);
    FUZZ_EXPECT(explanation.sequences_size() == static_cast<int>(plan->sequences.size()));
    Answer(*std::move(plan), options);
  }
  FUZZ_EXPECT(vectors <= Limits().max_vectors_per_call && tokens <= Limits().max_run_tokens_per_call);
}

void TokenizeInputs(const Model& model, const v1::EmbedRequest& request) {
  for (const v1::Input& input : request.inputs()) {
    if (!input.has_text()) continue;
    const absl::StatusOr<TokenizedText> tokens = model.tokenizer->Tokenize(input.text());
    if (!tokens.ok()) return ExpectRefused(tokens.status());
    v1::TokenizedText result;
    FUZZ_EXPECT(FillTokens(model, input.text(), *tokens, true, result).ok());
    const auto specials = model.manifest.special_prefix.size() + model.manifest.special_suffix.size();
    FUZZ_EXPECT(static_cast<size_t>(result.tokens_size()) >= specials);
    for (const v1::Token& token : result.tokens()) FUZZ_EXPECT(token.range().start() <= token.range().end());
  }
}

void Run(const v1::EmbedRequest& request, const ModelChoice& choice) {
  const ServedModel& served = *choice.model;
  const absl::StatusOr<ResolvedOptions> options = ResolveOptions(request.options(), choice, KnownProfiles(), Limits());
  if (!options.ok()) return ExpectRefused(options.status());
  FUZZ_EXPECT(options->recipe.size() == 32);
  TokenizeInputs(served.model(), request);
  const absl::StatusOr<std::vector<absl::StatusOr<Input>>> inputs =
      ConvertInputs(request.inputs(), options->input.spans, Limits(), request.partial_results());
  if (!inputs.ok()) return ExpectRefused(inputs.status());
  FUZZ_EXPECT(static_cast<int>(inputs->size()) == request.inputs_size());
  PlanInputs(served.model(), *options, *inputs);
}

}  // namespace
}  // namespace longembed

// Runs without protobuf's log (quiet_protobuf.cc), which would have a line for each string that is not UTF-8.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace longembed;
  static Models& models = *new Models;
  const grpc::Slice slice(data, size);
  v1::EmbedRequest request;
  if (const absl::Status status = ParseMessage(grpc::ByteBuffer(&slice, 1), kMaxRequestBytes, request); !status.ok()) {
    ExpectRefused(status);
    return 0;
  }
  for (const auto& served : models.registry().models()) Run(request, {.model = served.get()});
  const absl::StatusOr<ModelChoice> choice =
      ResolveModel(models.registry(), KnownProfiles(), request.options().model(), "options.model");
  if (choice.ok() && choice->extension != nullptr) Run(request, *choice);
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned seed) {
  std::minstd_rand random(seed);
  longembed::v1::EmbedRequest request;
  // Some inputs remain arbitrary bytes, which no client library would send.
  if (random() % 4 == 0 || !request.ParsePartialFromArray(data, static_cast<int>(size))) {
    return LLVMFuzzerMutate(data, size, max_size);
  }
  for (size_t i = 0; i <= random() % 3; ++i) longembed::MutateMessage(request, random);
  if (request.ByteSizeLong() > max_size) return LLVMFuzzerMutate(data, size, max_size);
  request.SerializePartialToArray(data, static_cast<int>(max_size));
  return request.ByteSizeLong();
}
