// A request's way to get a long text through a short-context model: windows composed with at most one
// positions method. README.md beside this file says which to choose, with the formulas and their papers.
#ifndef LONGEMBED_MODEL_PLAN_EXTENSION_H_
#define LONGEMBED_MODEL_PLAN_EXTENSION_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "model/manifest/manifest.h"
#include "model/plan/methods/all.h"
#include "model/plan/methods/attention_calibration.h"
#include "model/plan/methods/positions.h"

namespace longembed {

enum class When {
  kLong,    // Inputs of at most Lo tokens are encoded plainly, whatever else is asked.
  kAlways,  // The method applies to every input.
};

enum class LastWindow {
  kBackExtended,  // A short last window starts earlier so that it is full.
  kShort,
};

enum class Aggregation {
  kMean,
  kTokenWeightedMean,  // Weights are the windows' whole lengths.
  kMax,                // Element-wise.
  kFirst,
  kNormWeighted,  // Weights are softmax(|v| / norm_temperature) of the window vectors v (arXiv 2606.18781).
  kTopNorm,       // Mean of the `top` window vectors of greatest norm (arXiv 2606.18781).
};

// Their names in longembed.v1.Extension, by value.
inline constexpr const char* kWhenNames[]{"LONG", "ALWAYS"};
inline constexpr const char* kLastWindowNames[]{"BACK_EXTENDED", "SHORT"};
inline constexpr const char* kAggregationNames[]{"MEAN",  "TOKEN_WEIGHTED_MEAN", "MAX",
                                                 "FIRST", "NORM_WEIGHTED",       "TOP_NORM"};

// Parallel context windows.
struct Windows {
  // Specials and prompt included. Default: the capacity of the positions method with its numbers; Lo without a method
  // or with an adaptive one.
  std::optional<int64_t> tokens;
  int64_t overlap = 0;  // Content tokens shared by neighbors.
  LastWindow last = LastWindow::kBackExtended;
  Aggregation aggregation = Aggregation::kMean;
  std::optional<double> norm_temperature;  // kNormWeighted alone, 0.001 to 1000; absent: kNormTemperature.
  std::optional<int64_t> top;              // kTopNorm alone, from 1; absent: kTop. All where there are fewer windows.
  // The most vectors of an input, from 1: groups of neighboring windows, each aggregated. Absent: a vector a window.
  std::optional<int64_t> vectors;

  static constexpr double kNormTemperature = 1;
  static constexpr int64_t kTop = 3;
};

// A plain value. The default is no extension.
struct Extension {
  When when = When::kLong;
  std::optional<Windows> windows;
  PositionsMethod positions;  // Numbers that are absent follow from the sequence's own length.
  bool resonance = false;
  bool attention_log_scaling = false;
  std::optional<double> attention_temperature;  // t of softmax(q k / (t sqrt(d))) (arXiv 2410.24200); absent: 1.
  std::optional<AttentionCalibration> attention_calibration;
};

// The functions below are pure: any thread.

// The parts of an extension that a model has, by their names in longembed.v1.Extension: those of its family, without
// those that would replace frequencies which its checkpoint scales pair by pair.
std::vector<std::string> MethodsOf(const ModelManifest& model);

// Checks that `model` supports `extension`. Errors (INVALID_ARGUMENT) name the field relative to the extension, its
// value and the limit: METHOD_NOT_AVAILABLE, EXTENSION_VALUE_OUT_OF_RANGE, EXTENSION_CONFLICT, WINDOW_TOO_LARGE,
// WINDOW_TOO_SMALL, OVERLAP_TOO_LARGE.
absl::Status CheckExtension(const ModelManifest& model, const Extension& extension);

// The most tokens that one sequence may have under a checked extension; nullopt: bounded by the server's limits only.
std::optional<int64_t> SequenceCapacity(const ModelManifest& model, const Extension& extension);

// Returns the size of a window: that of the request, or the default.
int64_t WindowTokens(const ModelManifest& model, const Extension& extension);

// The positions of a sequence of `n` tokens, n <= SequenceCapacity, under a checked extension. A sequence within Lo
// stays plain under a method whose numbers are absent.
Positions PositionsOf(const ModelManifest& model, const Extension& extension, int64_t n);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_EXTENSION_H_
