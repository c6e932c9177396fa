// Rotary position tables (RoPE, arXiv 2104.09864) under every scaling. With theta_j = base^(-2j/d) for j = 0..d/2-1,
// the token at position p is rotated by the angles p * theta_j. Tables are computed in double and stored as float32,
// because lower precisions lose positions beyond a few thousand. The functions are pure; any thread can call them.
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

// Returns the scaled frequencies theta'_j for j = 0..rotary_dim/2-1, in radians per token. They start from the base in
// effect, are divided by the model's own factors and by `interpolate`, and are blended by the ramp. Last, with
// Resonance (arXiv 2403.00071), the wavelengths are rounded to whole tokens.
std::vector<double> RotaryFrequencies(const ModelManifest& model, const Positions& positions);

// Returns the factor of cos and sin: the checkpoint's amplitude times the method's.
double RotaryAmplitude(const ModelManifest& model, const Positions& positions);

// Returns a table whose row p holds amplitude * cos(p theta_j) and amplitude * sin(p theta_j), for p = 0..rows-1.
RotaryTable MakeRotaryTable(std::span<const double> frequencies, double amplitude, int64_t rows);

// Returns a table whose row i is row rows[i] of `table`.
RotaryTable GatherRows(const RotaryTable& table, std::span<const int64_t> rows);

// A cache of the rotary tables of recent sequences. The key is the frequencies and the amplitude, which with the
// position determine a row, so earlier requests never change a result. Multiple threads can call Get without external
// synchronization.
class RotaryTableCache {
 public:
  // Creates a cache that keeps at most 64 of the most recently used tables, of at most `max_bytes` together. A larger
  // table is never kept.
  explicit RotaryTableCache(size_t max_bytes = size_t{64} << 20) : max_bytes_(max_bytes) {}

  // Returns a table of at least `rows` rows, from the cache or newly computed.
  std::shared_ptr<const RotaryTable> Get(std::span<const double> frequencies, double amplitude, int64_t rows);

 private:
  struct Entry {
    std::vector<double> frequencies;
    double amplitude = 1;
    std::shared_ptr<const RotaryTable> table;
  };

  // Returns the entry with this key, however many rows it has, and makes it the most recently used one. Returns nullptr
  // if there is none.
  Entry* Find(std::span<const double> frequencies, double amplitude) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Removes the least recently used entries beyond the limits.
  void Evict() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const size_t max_bytes_;
  Mutex mutex_;
  std::list<Entry> entries_ ABSL_GUARDED_BY(mutex_);  // Most recently used first.
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_ROTARY_H_
