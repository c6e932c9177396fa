// Converts vectors, plans and tokens to messages of longembed.v1. Pure functions that any thread can call.
#ifndef LONGEMBED_SERVER_API_LONGEMBED_ANSWER_CONVERTER_H_
#define LONGEMBED_SERVER_API_LONGEMBED_ANSWER_CONVERTER_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "longembed/v1/embedding.pb.h"
#include "server/api/longembed/request_converter.h"
#include "server/core/embed_call.h"

namespace longembed {

void FillEmbedding(const std::vector<float>& vector, v1::EmbedOptions::Encoding encoding, v1::Embedding& embedding);
void FillResult(const absl::StatusOr<EmbeddedInput>& input, const ResolvedOptions& options, v1::EmbedResult& result);
void FillTiming(const EmbedAnswer& answer, absl::Duration total, v1::Timing& timing);
void FillExplanation(const Plan& plan, const VectorOptions& options, const ModelManifest& model,
                     v1::ExplainResult& result);

// Adds the tokens of a text. With `add_special_tokens` they are surrounded by the special tokens that the model's
// sequences have. Errors: those of Tokenizer::TokenText.
absl::Status FillTokens(const Model& model, std::string_view text, const TokenizedText& tokens, bool add_special_tokens,
                        v1::TokenizedText& result);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_API_LONGEMBED_ANSWER_CONVERTER_H_
