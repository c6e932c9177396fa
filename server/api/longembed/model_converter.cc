#include "server/api/longembed/model_converter.h"

#include <optional>
#include <utility>

#include "model/embed/pipeline.h"
#include "server/api/longembed/extension_converter.h"
#include "server/core/model_choice.h"

namespace longembed {
namespace {

v1::Model::Pooling ConvertPooling(Pooling pooling) {
  switch (pooling) {
    case Pooling::kMean:
      return v1::Model::MEAN;
    case Pooling::kCls:
      return v1::Model::CLS;
    case Pooling::kLast:
      return v1::Model::LAST;
    case Pooling::kNone:
      return v1::Model::NONE;
  }
  return v1::Model::POOLING_UNKNOWN;
}

}  // namespace

void FillModel(const ServedModel& served, const Profiles& profiles, const LimitsConfig& limits, v1::Model& model) {
  const ModelManifest& manifest = served.model().manifest;
  model.set_name(served.name());
  model.set_architecture(manifest.architecture);
  model.set_family(manifest.family == Family::kApe ? v1::Model::APE : v1::Model::ROPE);
  model.set_trained_window(static_cast<uint32_t>(manifest.trained_window));
  model.set_trained_window_source(manifest.trained_window_source);
  model.set_plain_limit(static_cast<uint32_t>(std::min<int64_t>(manifest.plain_limit, limits.max_tokens_per_sequence)));
  for (const std::string& name : OutputsOf(manifest)) {
    v1::EmbedOptions::Output output = v1::EmbedOptions::ONE_VECTOR;
    if (v1::EmbedOptions::Output_Parse(name, &output)) model.add_outputs(output);
  }
  const bool sparse = manifest.sparse_head != SparseHeadKind::kNone, tokens = manifest.token_vectors.has_value();
  const bool dense = manifest.pooling != Pooling::kNone || tokens;
  model.set_dimensions(static_cast<uint32_t>(dense ? manifest.vector_size : 0));
  if (tokens) model.set_max_query_tokens(static_cast<uint32_t>(manifest.token_vectors->query_tokens));
  model.set_sparse_dimensions(static_cast<uint32_t>(sparse ? manifest.vocabulary_size : 0));
  model.set_rotary_base(manifest.rotary_base);
  if (manifest.family == Family::kRope) model.set_rotary_factor(manifest.rotary_factor);
  if (manifest.rotary_scaling.has_value()) model.set_rotary_scaling(manifest.rotary_scaling->kind);
  for (const int dimensions : manifest.trained_dimensions) {
    if (dense) model.add_trained_dimensions(static_cast<uint32_t>(dimensions));
  }
  model.set_pooling(ConvertPooling(manifest.pooling));
  model.mutable_prompts()->insert(manifest.prompts.begin(), manifest.prompts.end());
  model.mutable_input_types()->insert(manifest.input_types.begin(), manifest.input_types.end());
  model.set_default_prompt_name(manifest.default_prompt_name);
  model.set_similarity_function(manifest.similarity_function);
  model.set_add_eos_token(manifest.add_eos_token);
  for (const std::string& method : MethodsOf(manifest)) model.add_methods(method);
  for (std::string& name : ProfilesOf(manifest, profiles)) model.add_profiles(std::move(name));
  for (std::string& alias : AliasesOf({.name = served.name(), .manifest = &served.model().manifest}, profiles))
    model.add_aliases(std::move(alias));
  FillRecommendations(manifest, model);
  model.mutable_limits()->set_max_inputs(static_cast<uint32_t>(limits.max_inputs_per_call));
  model.mutable_limits()->set_max_tokens_per_input(static_cast<uint32_t>(limits.max_tokens_per_input));
  model.mutable_limits()->set_max_vectors_per_call(static_cast<uint32_t>(limits.max_vectors_per_call));
  model.mutable_limits()->set_max_run_tokens_per_call(static_cast<uint32_t>(limits.max_run_tokens_per_call));
  model.mutable_limits()->set_max_tokens_per_sequence(static_cast<uint32_t>(limits.max_tokens_per_sequence));
  model.mutable_limits()->set_max_prompt_bytes(static_cast<uint32_t>(limits.max_prompt_bytes));
  model.mutable_limits()->set_max_request_bytes(static_cast<uint64_t>(limits.max_request_bytes));
  model.mutable_limits()->set_max_response_bytes(static_cast<uint64_t>(limits.max_response_bytes));
  model.mutable_limits()->set_max_streamed_text_bytes(static_cast<uint64_t>(MaxStreamedTextBytes(limits)));
  model.set_precision(PrecisionName(served.encoder().precision()));
  if (const std::optional<PrecisionReport>& report = served.precision_report(); report.has_value()) {
    model.mutable_precision_check()->set_lowest_cosine(report->lowest_cosine);
    model.mutable_precision_check()->set_mean_cosine(report->mean_cosine);
    model.mutable_precision_check()->set_texts(static_cast<uint32_t>(report->texts));
  }
  model.set_device(served.encoder().device());
  model.set_engine(served.encoder().engine());
  model.set_kernels(served.encoder().kernels());
  model.mutable_file_sha256()->insert(manifest.file_sha256.begin(), manifest.file_sha256.end());
  model.set_source(manifest.source);
  model.set_license(manifest.license);
}

}  // namespace longembed
