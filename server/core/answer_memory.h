// Reserves the memory of a call's answer in the ledger.
#ifndef LONGEMBED_SERVER_CORE_ANSWER_MEMORY_H_
#define LONGEMBED_SERVER_CORE_ANSWER_MEMORY_H_

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "model/manifest/manifest.h"
#include "model/plan/sequence.h"
#include "server/core/embed_params.h"

namespace longembed {

// The memory of one answer: the encoder's rows, the vectors that are made of them, and the message.
class AnswerMemory {
 public:
  // All arguments must outlive the object.
  AnswerMemory(const ModelManifest& manifest, const EmbedParams& params, const EmbedAnswer& answer)
      : manifest_(manifest), params_(params), answer_(answer) {}

  // Reserves the memory before the job runs. The answer has its plans, and `sequences` are those of the job. For sparse
  // vectors this is an estimate until SettleTerms. Errors: RESPONSE_TOO_LARGE, and those of Charge::Hold.
  absl::Status Reserve(std::span<const Sequence> sequences) const;
  // Changes the reservation for sparse vectors to `terms` terms in the rows and as many in the answer.
  absl::Status ReserveTerms(int64_t terms) const;
  // Changes the reservation for sparse vectors to the answer's actual terms. Errors: RESPONSE_TOO_LARGE.
  absl::Status SettleTerms() const;

 private:
  bool is_sparse() const { return params_.input_options.plan.sparse; }
  int64_t CountVectors() const;
  int64_t WireBytes() const;  // Of dense vectors.
  absl::Status CheckSize() const;
  // Returns the most memory that the answer takes once it is serialized, if its wire format has `wire_bytes`.
  int64_t SerializedBytes(int64_t wire_bytes) const;
  int64_t ExpectedTerms(std::span<const Sequence> sequences) const;

  const ModelManifest& manifest_;
  const EmbedParams& params_;
  const EmbedAnswer& answer_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_CORE_ANSWER_MEMORY_H_
