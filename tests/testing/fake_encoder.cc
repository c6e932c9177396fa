#include "tests/testing/fake_encoder.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <span>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "model/errors/errors.h"

namespace longembed {

absl::StatusOr<VectorBlock> FakeEncoder::Encode(const PackedBatch& batch, Team::Leader&,
                                                absl::FunctionRef<bool()> is_cancelled) {
  absl::Status failure;
  {
    const MutexLock lock(mutex_);
    std::vector<int32_t>& firsts = batches_.emplace_back();
    for (size_t s = 0; s + 1 < batch.sequence_offsets.size(); ++s) {
      firsts.push_back(batch.tokens[batch.sequence_offsets[s]]);
    }
    failure = failure_;
    for (const auto& [token, status] : failures_) {
      if (std::ranges::find(batch.tokens, token) != batch.tokens.end()) failure = status;
    }
  }
  called_.NotifyAll();
  while (true) {
    if (asks_ && is_cancelled()) {
      ++given_up_;
      return EncoderCancelled();
    }
    if (open_) break;
    absl::SleepFor(absl::Milliseconds(1));
  }
  if (!failure.ok()) return failure;

  VectorBlock block{.rows = static_cast<int>(batch.spans.size()), .width = kWidth};
  for (const Range span : batch.spans) {
    const auto next = std::upper_bound(batch.sequence_offsets.begin(), batch.sequence_offsets.end(), span.start);
    const auto tokens =
        std::span(batch.tokens).subspan(static_cast<size_t>(span.start), static_cast<size_t>(span.size()));
    float sum = std::accumulate(tokens.begin(), tokens.end(), 0.0f);
    if (std::ranges::find(tokens, kBrokenToken) != tokens.end()) sum = std::numeric_limits<float>::quiet_NaN();
    block.values.insert(block.values.end(),
                        {sum, static_cast<float>(span.size()), static_cast<float>(*next - *(next - 1)), 1.0f});
  }
  return block;
}

void FakeEncoder::AwaitCalls(int calls) {
  MutexLock lock(mutex_);
  called_.Wait(lock, [this, calls]()
                         ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return static_cast<int>(batches_.size()) >= calls; });
}

void FakeEncoder::FailWith(absl::Status status) {
  const MutexLock lock(mutex_);
  failure_ = std::move(status);
}

void FakeEncoder::FailOn(int32_t token, absl::Status status) {
  const MutexLock lock(mutex_);
  failures_[token] = std::move(status);
}

std::vector<std::vector<int32_t>> FakeEncoder::batches() const {
  const MutexLock lock(mutex_);
  return batches_;
}

Sequence MakeSequence(int32_t token, int size) {
  Sequence sequence;
  sequence.tokens.assign(size, token);
  sequence.positions.resize(size);
  std::iota(sequence.positions.begin(), sequence.positions.end(), 0.0f);
  sequence.spans = {{0, size}};
  return sequence;
}

}  // namespace longembed
