// An encoder without a network: a vector tells which tokens it came from.
#ifndef LONGEMBED_TESTS_TESTING_FAKE_ENCODER_H_
#define LONGEMBED_TESTS_TESTING_FAKE_ENCODER_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "model/encoder/encoder.h"
#include "system/mutex.h"

namespace longembed {

// Each span's vector is {sum of its tokens, its length, length of its sequence, 1}; the sum is NaN where kBrokenToken
// is among them.
class FakeEncoder final : public Encoder {
 public:
  static constexpr int kWidth = 4;
  static constexpr int32_t kBrokenToken = 99;

  absl::StatusOr<VectorBlock> Encode(const PackedBatch& batch, Team::Leader&,
                                     absl::FunctionRef<bool()> is_cancelled) override;
  int hidden_size() const override { return kWidth; }
  std::string device() const override { return "fake"; }
  std::string engine() const override { return "fake"; }

  // Encode waits while the gate is closed; it asks is_cancelled all the time, as a real encoder does between layers.
  void CloseGate() { open_ = false; }
  void OpenGate() { open_ = true; }
  // From now on it does not ask, as within a layer.
  void IgnoreCancellation() { asks_ = false; }
  // Returns once so many Encode calls have begun.
  void AwaitCalls(int calls);
  // From now on every batch fails with this.
  void FailWith(absl::Status status);
  // From now on every batch with this token in it fails with this.
  void FailOn(int32_t token, absl::Status status);

  // The sequences of every batch so far, by their first tokens.
  std::vector<std::vector<int32_t>> batches() const;
  int given_up() const { return given_up_; }

 private:
  std::atomic<bool> open_ = true;
  std::atomic<bool> asks_ = true;
  std::atomic<int> given_up_ = 0;
  mutable Mutex mutex_;
  ConditionVariable called_;
  std::vector<std::vector<int32_t>> batches_ ABSL_GUARDED_BY(mutex_);
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
  std::map<int32_t, absl::Status> failures_ ABSL_GUARDED_BY(mutex_);
};

// A sequence of `size` tokens, all equal to `token`, with one span over all of them.
Sequence MakeSequence(int32_t token, int size);

}  // namespace longembed

#endif  // LONGEMBED_TESTS_TESTING_FAKE_ENCODER_H_
