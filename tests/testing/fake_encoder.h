// An encoder without a network. Its vectors show which tokens they came from.
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

// Returns, for each span, the vector {sum of its tokens, its length, length of its sequence, 1}. The sum is NaN if
// kBrokenToken is among the tokens.
class FakeEncoder final : public Encoder {
 public:
  static constexpr int kWidth = 4;
  static constexpr int32_t kBrokenToken = 99;

  absl::StatusOr<VectorBlock> Encode(const PackedBatch& batch, Team::Leader&,
                                     absl::FunctionRef<bool()> is_cancelled) override;
  int hidden_size() const override { return kWidth; }
  std::string device() const override { return "fake"; }
  std::string engine() const override { return "fake"; }

  // Makes Encode wait until OpenGate. While it waits it polls is_cancelled, as a real encoder does between layers.
  void CloseGate() { open_ = false; }
  void OpenGate() { open_ = true; }
  // Stops polling is_cancelled from now on, as a real encoder does within a layer.
  void IgnoreCancellation() { asks_ = false; }
  // Returns after at least `calls` Encode calls have begun.
  void AwaitCalls(int calls);
  // Makes every batch fail with `status` from now on.
  void FailWith(absl::Status status);
  // Makes every batch that contains `token` fail with `status` from now on.
  void FailOn(int32_t token, absl::Status status);

  // Returns the batches so far. Each batch lists the first token of each of its sequences.
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

// Returns a sequence of `size` tokens, all equal to `token`, with one span over all of them.
Sequence MakeSequence(int32_t token, int size);

}  // namespace longembed

#endif  // LONGEMBED_TESTS_TESTING_FAKE_ENCODER_H_
