// Rotary position tables (RoPE, arXiv 2104.09864) under every scaling: theta_j = base^(-2j/d), j = 0..d/2-1, token p is
// rotated by p * theta_j. Built in double, kept as float32: lower precisions lose positions beyond a few thousand.
// The functions are pure: any thread.
#ifndef LONGEMBED_MODEL_PLAN_ROTARY_H_
#define LONGEMBED_MODEL_PLAN_ROTARY_H_

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "model/manifest/manifest.h"
#include "model/plan/methods/positions.h"
#include "model/plan/sequence.h"
#include "system/mutex.h"

namespace longembed {

// theta'_j, j = 0..rotary_dim/2-1, radians a token: of the base in effect, divided by the model's own factors and by
// `interpolate`, blended by the ramp, and last, with Resonance (arXiv 2403.00071), with wavelengths rounded to whole
// tokens.
std::vector<double> RotaryFrequencies(const ModelManifest& model, const Positions& positions);

// Of cos and sin: the checkpoint's times the method's.
double RotaryAmplitude(const ModelManifest& model, const Positions& positions);

// Row p holds amplitude * cos(p theta_j) and sin, for p = 0..rows-1.
RotaryTable MakeRotaryTable(std::span<const double> frequencies, double amplitude, int64_t rows);

// Row i of the result is row rows[i] of `table`.
RotaryTable GatherRows(const RotaryTable& table, std::span<const int64_t> rows);

// The tables of recent sequences. A row depends on its position, the frequencies and the amplitude alone, and these are
// the key; earlier requests change nothing. Multiple threads can call Get without external
// synchronization.
class RotaryTableCache {
 public:
  // Keeps the most recently used tables, a few dozen, of at most `max_bytes` together. A larger one is not kept at all.
  explicit RotaryTableCache(size_t max_bytes = size_t{64} << 20) : max_bytes_(max_bytes) {}

  // At least `rows` rows.
  std::shared_ptr<const RotaryTable> Get(std::span<const double> frequencies, double amplitude, int64_t rows);

 private:
  struct Entry {
    std::vector<double> frequencies;
    double amplitude = 1;
    std::shared_ptr<const RotaryTable> table;
  };

  // The kept entry, of any length, now the most recently used one; nullptr without one.
  Entry* Find(std::span<const double> frequencies, double amplitude) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Drops the least recently used entries beyond the limits.
  void Evict() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const size_t max_bytes_;
  Mutex mutex_;
  std::list<Entry> entries_ ABSL_GUARDED_BY(mutex_);  // Most recently used first.
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_ROTARY_H_
