#include "model/encoder/encode_in_halves.h"

#include <iterator>
#include <new>
#include <utility>

#include "absl/status/status.h"
#include "model/errors/errors.h"

namespace longembed {

namespace {

// Packs and encodes. Packing may run out of memory, too. Checks for cancellation first, because the batch may have been
// cancelled during the last attempt.
absl::StatusOr<VectorBlock> PackAndEncode(Encoder& encoder, std::span<const Sequence* const> sequences,
                                          Team::Leader& leader, absl::FunctionRef<bool()> is_cancelled) {
  if (is_cancelled()) return EncoderCancelled();
  try {
    return encoder.Encode(Pack(sequences), leader, is_cancelled);
  } catch (const std::bad_alloc&) {
    return EncoderOutOfMemory("the packed batch does not fit");
  }
}

absl::StatusOr<VectorBlock> Joined(VectorBlock first, VectorBlock second) {
  try {
    first.values.insert(first.values.end(), second.values.begin(), second.values.end());
    first.sparse.insert(first.sparse.end(), std::move_iterator(second.sparse.begin()),
                        std::move_iterator(second.sparse.end()));
  } catch (const std::bad_alloc&) {
    return EncoderOutOfMemory("the results of the halves do not fit");
  }
  first.rows += second.rows;
  return first;
}

}  // namespace

absl::StatusOr<VectorBlock> EncodeInHalves(Encoder& encoder, std::span<const Sequence* const> sequences,
                                           Team::Leader& leader, absl::FunctionRef<bool()> is_cancelled) {
  absl::StatusOr<VectorBlock> whole = PackAndEncode(encoder, sequences, leader, is_cancelled);
  if (!absl::IsResourceExhausted(whole.status()) || sequences.size() < 2) return whole;
  const size_t half = sequences.size() / 2;
  absl::StatusOr<VectorBlock> first = EncodeInHalves(encoder, sequences.first(half), leader, is_cancelled);
  if (!first.ok()) return first;
  absl::StatusOr<VectorBlock> second = EncodeInHalves(encoder, sequences.subspan(half), leader, is_cancelled);
  if (!second.ok()) return second;
  return Joined(*std::move(first), *std::move(second));
}

}  // namespace longembed
