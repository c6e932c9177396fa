#include "server/api/longembed/answer_converter.h"

#include <utility>

#include "model/errors/errors.h"
#include "model/plan/cost.h"
#include "model/text/utf8.h"
#include "model/vector/encoding.h"
#include "server/errors/rpc_status.h"
#include "system/return_if_error.h"

namespace longembed {
namespace {

using v1::EmbedOptions;

void FillRange(Range range, v1::Range& message) {
  message.set_start(static_cast<uint32_t>(range.start));
  message.set_end(static_cast<uint32_t>(range.end));
}

absl::Status AddToken(const Tokenizer& tokenizer, int32_t id, bool special, v1::Token& token) {
  absl::StatusOr<std::string> text = tokenizer.TokenText(id);
  if (!text.ok()) return text.status();
  token.set_id(static_cast<uint32_t>(id));
  token.set_text(*std::move(text));
  token.set_special(special);
  return absl::OkStatus();
}

}  // namespace

void FillEmbedding(const std::vector<float>& vector, EmbedOptions::Encoding encoding, v1::Embedding& embedding) {
  embedding.set_dimensions(static_cast<uint32_t>(vector.size()));
  switch (encoding) {
    case EmbedOptions::FLOAT16:
      embedding.set_packed(PackFloat16(vector));
      return;
    case EmbedOptions::BFLOAT16:
      embedding.set_packed(PackBfloat16(vector));
      return;
    case EmbedOptions::INT8: {
      Int8Vector packed = PackInt8(vector);
      embedding.set_packed(std::move(packed.bytes));
      embedding.set_scale(packed.scale);
      return;
    }
    case EmbedOptions::BINARY:
      embedding.set_packed(PackBinary(vector));
      return;
    default:
      embedding.mutable_values()->Add(vector.begin(), vector.end());
  }
}

void FillResult(const absl::StatusOr<EmbeddedInput>& input, const ResolvedOptions& options, v1::EmbedResult& result) {
  if (!input.ok()) {
    *result.mutable_error() = ToRpcStatus(input.status());
    return;
  }
  for (const OutputVector& vector : input->vectors) {
    v1::Embedding& embedding = *result.add_embeddings();
    FillEmbedding(vector.values, options.encoding, embedding);
    if (options.sparse_dimensions > 0) {
      embedding.set_dimensions(static_cast<uint32_t>(options.sparse_dimensions));
      embedding.mutable_indices()->mutable_ids()->Add(vector.indices.begin(), vector.indices.end());
    }
    if (!options.several_vectors) continue;
    FillRange(vector.content, *embedding.mutable_range());
  }
  result.set_tokens(static_cast<uint32_t>(input->plan.tokens));
  result.set_truncated_tokens(static_cast<uint32_t>(input->plan.truncated_tokens));
  result.set_truncated_tokens_estimated(input->plan.estimated);
  for (const PlannedSequence& planned : input->plan.sequences) FillSequence(planned, *result.add_sequences());
}

void FillTiming(const EmbedAnswer& answer, absl::Duration total, v1::Timing& timing) {
  const auto fill = [](absl::Duration duration, google::protobuf::Duration& message) {
    absl::Duration rest;
    message.set_seconds(absl::IDivDuration(duration, absl::Seconds(1), &rest));
    message.set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(rest)));
  };
  fill(answer.tokenization, *timing.mutable_tokenization());
  fill(answer.queue, *timing.mutable_queue());
  fill(answer.inference, *timing.mutable_inference());
  fill(total, *timing.mutable_total());
}

void FillExplanation(const Plan& plan, const VectorOptions& options, const ModelManifest& model,
                     v1::ExplainResult& result) {
  result.set_tokens(static_cast<uint32_t>(plan.tokens));
  result.set_truncated_tokens(static_cast<uint32_t>(plan.truncated_tokens));
  result.set_capacity(static_cast<uint32_t>(plan.capacity));
  for (const PlannedSequence& planned : plan.sequences) FillSequence(planned, *result.add_sequences());
  const Cost cost = EstimateCost(model, plan);
  result.mutable_cost()->set_tokens(static_cast<uint64_t>(cost.tokens));
  result.mutable_cost()->set_attention_pairs(static_cast<uint64_t>(cost.attention_pairs));
  result.mutable_cost()->set_gflop(cost.gflop);
  if (!options.windows.vectors.has_value()) return;
  for (const Range range : RangesOfVectors(plan, options)) FillRange(range, *result.add_vectors());
}

absl::Status FillTokens(const Model& model, std::string_view text, const TokenizedText& tokens, bool add_special_tokens,
                        v1::TokenizedText& result) {
  const auto add_specials = [&](const std::vector<int32_t>& ids) -> absl::Status {
    if (!add_special_tokens) return absl::OkStatus();
    for (const int32_t id : ids) {
      RETURN_IF_ERROR(AddToken(*model.tokenizer, id, true, *result.add_tokens()));
    }
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(add_specials(model.manifest.special_prefix));
  const CodePointIndex code_points(text);
  for (size_t i = 0; i < tokens.ids.size(); ++i) {
    v1::Token& token = *result.add_tokens();
    RETURN_IF_ERROR(AddToken(*model.tokenizer, tokens.ids[i], false, token));
    token.mutable_range()->set_start(static_cast<uint32_t>(code_points.Before(tokens.ranges[i].begin)));
    token.mutable_range()->set_end(static_cast<uint32_t>(code_points.Before(tokens.ranges[i].end)));
  }
  return add_specials(model.manifest.special_suffix);
}

}  // namespace longembed
