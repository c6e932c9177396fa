// Retries with smaller batches after running out of memory.
#ifndef LONGEMBED_MODEL_ENCODER_ENCODE_IN_HALVES_H_
#define LONGEMBED_MODEL_ENCODER_ENCODE_IN_HALVES_H_

#include <span>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "model/encoder/encoder.h"
#include "model/plan/sequence.h"

namespace longembed {

// As Encoder::Encode over Pack(sequences); when the encoder answers RESOURCE_EXHAUSTED, the two halves of the batch run
// one after the other, and so on down to single sequences. One that does not fit alone is the error of them all.
absl::StatusOr<VectorBlock> EncodeInHalves(Encoder& encoder, std::span<const Sequence* const> sequences,
                                           Team::Leader& leader, absl::FunctionRef<bool()> is_cancelled);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_ENCODE_IN_HALVES_H_
