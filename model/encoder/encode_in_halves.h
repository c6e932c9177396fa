// Retries with smaller batches after running out of memory.
#ifndef LONGEMBED_MODEL_ENCODER_ENCODE_IN_HALVES_H_
#define LONGEMBED_MODEL_ENCODER_ENCODE_IN_HALVES_H_

#include <span>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "model/encoder/encoder.h"
#include "model/plan/sequence.h"

namespace longembed {

// Encodes Pack(sequences) with Encoder::Encode. If the encoder returns RESOURCE_EXHAUSTED, encodes the two halves of
// the batch one after the other, recursively down to single sequences. If a single sequence does not fit, its error is
// returned for the whole batch.
absl::StatusOr<VectorBlock> EncodeInHalves(Encoder& encoder, std::span<const Sequence* const> sequences,
                                           Team::Leader& leader, absl::FunctionRef<bool()> is_cancelled);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_ENCODE_IN_HALVES_H_
