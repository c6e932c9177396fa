// The resolved form of a positions method: numbers that the planner and the rotary tables apply without knowing which
// method they come from.
//
// A method is a struct with
//   kName          its field in longembed.v1.Extension
//   kRotary        whether it needs rotary positions
//   kMovesTokens   whether it gives tokens other positions, instead of scaling frequencies. Resonance excludes it
//   kReplacesFrequencies   optional: it computes frequencies from the base, which a checkpoint's RotaryScaling excludes
//   kAdaptive      whether a number that is left out follows from the sequence's length
//   its numbers    as members, with their defaults
//   Describe       lists the numbers by name
//   Check(model)   checks their ranges. Errors: EXTENSION_VALUE_OUT_OF_RANGE, EXTENSION_CONFLICT
//   Reach(model)   the most tokens that one sequence may have; nullopt: any number
//   WithDefaults(model)   optional: itself with every number, where defaults are the model's
//   Resolve(model, n)   the Positions of a sequence of n tokens, n <= Reach
// and one line in all.h. All of them are plain values and pure functions: any thread.
#ifndef LONGEMBED_MODEL_PLAN_METHODS_POSITIONS_H_
#define LONGEMBED_MODEL_PLAN_METHODS_POSITIONS_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <vector>

#include "model/manifest/manifest.h"

namespace longembed {

// Interpolates slow rotary pairs and keeps fast ones: NTK-by-parts and YaRN (arXiv 2309.00071). Between the pairs that
// turn beta_fast and beta_slow times within Lo the frequencies are blended.
struct Ramp {
  double factor = 1;
  double beta_fast = 32;
  double beta_slow = 1;
};

// Of attention calibration, in effect (attention_calibration.h).
struct Calibration {
  double strength = 0;
  int64_t basket = 0;  // Positions.
  int64_t layers = 0;  // The last ones; 0: attention is plain.
};

// The default is plain positions.
struct Positions {
  const char* method = "";  // kName; empty: plain.
  double factor = 1;        // s in effect.

  // The row of token p in the position table or the rotary table is floor(p / divide), or p mod modulo where that is
  // not 0, divided by `interpolate`.
  int64_t divide = 1;
  int64_t modulo = 0;
  double interpolate = 1;

  // Rotary positions only.
  std::optional<double> base;  // Replaces the model's rotary base.
  std::optional<Ramp> ramp;
  bool long_factors = false;  // Of the checkpoint's RotaryScaling.
  bool resonance = false;
  double amplitude = 1;  // Multiplies cos and sin.
  // Of two tokens at a distance of neighbor_window or more, i the later one and j the earlier one, the rotations are
  // those of floor(i / group) + far_shift and floor(j / group). 0: no pair is that far.
  int64_t group = 1;
  int64_t neighbor_window = 0;
  int64_t far_shift = 0;

  // Above 0: tokens of chunks of `modulo` tokens; a pair of two chunks is rotated so that distances go on for so many
  // tokens, and stay equal beyond (dual_chunk.h).
  int64_t chunk_window = 0;

  double query_scale = 1;  // Of attention log-scaling and temperature.
  Calibration calibration;

  bool is_plain() const { return *method == '\0'; }
  bool moves_rows() const { return divide != 1 || modulo != 0; }
  int64_t Row(int64_t p) const { return modulo != 0 ? p % modulo : p / divide; }
};

inline int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The factor asked for, or max(1, n / Lo).
inline double AdaptiveFactor(const std::optional<double>& factor, const ModelManifest& model, int64_t n) {
  return factor.value_or(std::max(1.0, static_cast<double>(n) / model.trained_window));
}

// floor(factor Lo). A hair above, because 1.16 * 100 is 115.99999999999999 in doubles.
inline std::optional<int64_t> ScaledReach(const std::optional<double>& factor, const ModelManifest& model) {
  if (!factor.has_value()) return std::nullopt;
  return static_cast<int64_t>(std::floor(*factor * model.trained_window * (1 + 1e-12)));
}

// Rows of the position table for each token of a sequence (APE): real-valued, the table's stride included.
std::vector<float> TableRows(const ModelManifest& model, const Positions& positions, int64_t n);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_METHODS_POSITIONS_H_
