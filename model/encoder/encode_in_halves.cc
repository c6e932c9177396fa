#include "model/encoder/encode_in_halves.h"

#include "absl/status/status.h"

namespace longembed {

absl::StatusOr<VectorBlock> EncodeInHalves(Encoder& encoder, std::span<const Sequence* const> sequences,
                                           Team::Leader& leader, absl::FunctionRef<bool()> nobody_waits) {
  absl::StatusOr<VectorBlock> whole = encoder.Encode(Pack(sequences), leader, nobody_waits);
  if (!absl::IsResourceExhausted(whole.status()) || sequences.size() < 2) return whole;
  const size_t half = sequences.size() / 2;
  absl::StatusOr<VectorBlock> first = EncodeInHalves(encoder, sequences.first(half), leader, nobody_waits);
  if (!first.ok()) return first;
  const absl::StatusOr<VectorBlock> second = EncodeInHalves(encoder, sequences.subspan(half), leader, nobody_waits);
  if (!second.ok()) return second;
  first->rows += second->rows;
  first->values.insert(first->values.end(), second->values.begin(), second->values.end());
  return first;
}

}  // namespace longembed
