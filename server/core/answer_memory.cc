#include "server/core/answer_memory.h"

#include <algorithm>
#include <vector>

#include "model/vector/token_pooling.h"
#include "server/errors/errors.h"
#include "system/return_if_error.h"

namespace longembed {
namespace {

constexpr int64_t kVector = sizeof(std::vector<float>) + 16;  // The object and malloc's overhead.
constexpr int64_t kTerm = sizeof(int32_t) + sizeof(float);    // A term of a sparse vector.

}  // namespace

int64_t AnswerMemory::CountVectors() const {
  int64_t vectors = 0;
  for (const absl::StatusOr<EmbeddedInput>& input : answer_.results) {
    if (input.ok()) vectors += longembed::CountVectors(input->plan, params_.vector_options);
  }
  return vectors;
}

int64_t AnswerMemory::WireBytes() const {
  return CountVectors() * params_.vector_options.dimensions * params_.bits_per_component / 8;
}

int64_t AnswerMemory::SerializedBytes(int64_t wire_bytes) const {
  const auto bytes = static_cast<int64_t>(params_.call.answer_growth * static_cast<double>(wire_bytes));
  return std::min(bytes, params_.max_response_bytes);
}

absl::Status AnswerMemory::CheckSize() const {
  if (is_sparse()) return absl::OkStatus();  // SettleTerms checks it.
  const int64_t bytes = WireBytes();
  return bytes > params_.max_response_bytes ? ResponseTooLarge(bytes, params_.max_response_bytes) : absl::OkStatus();
}

absl::Status AnswerMemory::Reserve(std::span<const Sequence> sequences) const {
  RETURN_IF_ERROR(CheckSize());
  if (is_sparse()) return ReserveTerms(ExpectedTerms(sequences));
  const int64_t width = manifest_.vector_size * static_cast<int64_t>(sizeof(float));
  int64_t rows = 0;
  for (const Sequence& sequence : sequences) rows += static_cast<int64_t>(sequence.spans.size());
  for (const absl::StatusOr<EmbeddedInput>& input : answer_.results) {
    if (input.ok() && !input->plan.parts.empty()) rows += input->plan.vectors();  // Joined from the rows of its parts.
  }
  // Counts the rows and the answer's message, which is made from the rows one input after the other.
  const int64_t message = params_.vector_options.dimensions * static_cast<int64_t>(sizeof(float));
  const bool pools = params_.vector_options.token_pooling > 1;
  const int64_t vectors = pools ? rows : CountVectors();
  const int64_t pooling = pools ? PoolingBytes(rows) : 0;
  // The rows are gone when the message is serialized.
  const int64_t before = std::max(rows * (width + kVector) + pooling, SerializedBytes(WireBytes()));
  return params_.call.memory.Hold(Memory::kAnswers, vectors * (message + kVector) + before);
}

int64_t AnswerMemory::ExpectedTerms(std::span<const Sequence> sequences) const {
  // SPLADE adds words that a text does not contain: a few for each token of a sentence, about 300 in all for a page.
  constexpr int64_t kSpladeTerms = 16;
  const int64_t of_token = manifest_.sparse_head == SparseHeadKind::kTokenWeights ? 1 : kSpladeTerms;
  int64_t terms = 0;
  for (const Sequence& sequence : sequences) {
    terms += std::min<int64_t>(of_token * sequence.size(), manifest_.vocabulary_size);
  }
  return terms;
}

absl::Status AnswerMemory::ReserveTerms(int64_t terms) const {
  int64_t rows = 0, vectors = 0;
  for (const absl::StatusOr<EmbeddedInput>& input : answer_.results) {
    if (!input.ok()) continue;
    rows += static_cast<int64_t>(input->plan.sequences.size());
    ++vectors;
  }
  const int64_t before = std::max(terms * kTerm, SerializedBytes(terms * kTerm));
  return params_.call.memory.Hold(Memory::kAnswers, terms * kTerm + before + 2 * (rows + vectors) * kVector);
}

absl::Status AnswerMemory::SettleTerms() const {
  int64_t terms = 0, vectors = 0;
  for (const absl::StatusOr<EmbeddedInput>& input : answer_.results) {
    if (!input.ok()) continue;
    terms += static_cast<int64_t>(input->vectors.front().indices.size());
    ++vectors;
  }
  const int64_t bytes = terms * (static_cast<int64_t>(sizeof(int32_t)) + params_.bits_per_component / 8);
  if (bytes > params_.max_response_bytes) return ResponseTooLarge(bytes, params_.max_response_bytes);
  // The rows have been freed. The vectors remain, and the message that is made of them.
  params_.call.memory.Correct(Memory::kAnswers, 2 * vectors * kVector + terms * kTerm +
                                                    std::max(terms * kTerm, SerializedBytes(terms * kTerm)));
  return absl::OkStatus();
}

}  // namespace longembed
