// The resolved form of a positions method: numbers that the planner and the rotary tables apply without knowing the
// method.
//
// A method is a struct with
//   kName          its field in longembed.v1.Extension
//   kRotary        whether the method needs rotary positions
//   kMovesTokens   whether it changes the tokens' positions instead of the frequencies; if so, it excludes Resonance
//   kReplacesFrequencies   optional: whether it computes frequencies from the base, which excludes a RotaryScaling
//   kAdaptive      whether absent parameters are computed from the sequence's length
//   parameters     as members with their defaults
//   Describe       lists the parameters by name
//   Check(model)   checks their ranges. Errors: EXTENSION_VALUE_OUT_OF_RANGE, EXTENSION_CONFLICT
//   Reach(model)   returns the maximum number of tokens of one sequence; nullopt if there is none
//   WithDefaults(model)   optional: returns the method with every parameter set, for defaults that depend on the model
//   Resolve(model, n)   returns the Positions of a sequence of n tokens, n <= Reach
//   DefaultWindow(model)   optional: returns the default size of a window in tokens, if it is not Reach(model)
// and is listed in all.h. All methods are plain values with pure functions that any thread can use.
#ifndef LONGEMBED_MODEL_PLAN_METHODS_POSITIONS_H_
#define LONGEMBED_MODEL_PLAN_METHODS_POSITIONS_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <vector>

#include "model/manifest/manifest.h"

namespace longembed {

// A ramp over rotary pairs that keeps fast pairs and interpolates slow ones: NTK-by-parts and YaRN (arXiv 2309.00071).
// Frequencies are blended between the pairs that turn beta_fast and beta_slow times within Lo.
struct Ramp {
  double factor = 1;
  double beta_fast = 32;
  double beta_slow = 1;
};

// The attention calibration in effect (attention_calibration.h).
struct Calibration {
  double strength = 0;
  int64_t basket = 0;  // In positions.
  int64_t layers = 0;  // Number of last layers that are calibrated; 0 means plain attention.
};

// The positions of one sequence. The default is plain positions.
struct Positions {
  const char* method = "";  // kName of the method; empty if plain.
  double factor = 1;        // The s in effect.

  // Token p has the row floor(p / divide) of the position table or the rotary table, or p mod modulo if that is not 0.
  // The row is then divided by `interpolate`.
  int64_t divide = 1;
  int64_t modulo = 0;
  double interpolate = 1;

  // Rotary positions only.
  std::optional<double> base;  // Replaces the model's rotary base.
  std::optional<Ramp> ramp;
  bool long_factors = false;  // Use long_factors of the checkpoint's RotaryScaling.
  bool resonance = false;
  double amplitude = 1;  // Multiplies cos and sin.
  // For two tokens at a distance of neighbor_window or more, the later token i has the rotation of floor(i / group) +
  // far_shift, and the earlier token j that of floor(j / group). If neighbor_window is 0, there are no such pairs.
  int64_t group = 1;
  int64_t neighbor_window = 0;
  int64_t far_shift = 0;

  // If above 0, tokens form chunks of `modulo` tokens. For pairs across chunks, distances stay exact for this many
  // tokens and are constant beyond (dual_chunk.h).
  int64_t chunk_window = 0;

  double query_scale = 1;  // From attention log-scaling and temperature.
  Calibration calibration;

  bool is_plain() const { return *method == '\0'; }
  bool moves_rows() const { return divide != 1 || modulo != 0; }
  int64_t Row(int64_t p) const { return modulo != 0 ? p % modulo : p / divide; }
};

inline int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Returns the requested factor, or max(1, n / Lo).
inline double AdaptiveFactor(const std::optional<double>& factor, const ModelManifest& model, int64_t n) {
  return factor.value_or(std::max(1.0, static_cast<double>(n) / model.trained_window));
}

// Returns floor(factor Lo), or nullopt without a factor. The factor slightly above 1 compensates for rounding: 1.16 *
// 100 is 115.99999999999999 in double.
inline std::optional<int64_t> ScaledReach(const std::optional<double>& factor, const ModelManifest& model) {
  if (!factor.has_value()) return std::nullopt;
  return static_cast<int64_t>(std::floor(*factor * model.trained_window * (1 + 1e-12)));
}

// Returns the row of the position table for each token of a sequence (APE), with the table's stride applied. Rows are
// not always whole numbers.
std::vector<float> TableRows(const ModelManifest& model, const Positions& positions, int64_t n);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_METHODS_POSITIONS_H_
