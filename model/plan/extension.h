// Context extension: how a request gets a text longer than the trained window through the model. An extension combines
// windows with at most one positions method. README.md in this folder helps to choose, and lists the formulas and
// their papers.
//
// Lo is ModelManifest::trained_window, in tokens, here and in every file of this folder.
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
  kLong,    // Inputs of at most Lo tokens that fit into one sequence are encoded without the extension.
  kAlways,  // The extension applies to every input.
};

enum class LastWindow {
  kBackExtended,  // A last window that would be short starts earlier, so that it is full.
  kShort,
};

enum class Aggregation {
  kMean,
  kTokenWeightedMean,  // Weights are the windows' lengths in tokens, special tokens and prompt included.
  kMax,                // Element-wise.
  kFirst,
  kNormWeighted,  // Weights are softmax(|v| / norm_temperature) of the window vectors v (arXiv 2606.18781).
  kTopNorm,       // Mean of the `top` window vectors of greatest norm (arXiv 2606.18781).
};

// Names of the enum values in longembed.v1.Extension, indexed by value.
inline constexpr const char* kWhenNames[]{"LONG", "ALWAYS"};
inline constexpr const char* kLastWindowNames[]{"BACK_EXTENDED", "SHORT"};
inline constexpr const char* kAggregationNames[]{"MEAN",  "TOKEN_WEIGHTED_MEAN", "MAX",
                                                 "FIRST", "NORM_WEIGHTED",       "TOP_NORM"};

// Parallel context windows.
struct Windows {
  // Tokens of a window, special tokens and prompt included. Default: the capacity of the positions method with its
  // parameters, or Lo if there is no method, its parameters are adaptive or its capacity has no bound.
  std::optional<int64_t> tokens;
  int64_t overlap = 0;  // Content tokens that neighboring windows share.
  LastWindow last = LastWindow::kBackExtended;
  Aggregation aggregation = Aggregation::kMean;
  // For kNormWeighted only; 0.001 to 1000. Default: kNormTemperature.
  std::optional<double> norm_temperature;
  // For kTopNorm only; at least 1. Default: kTop. With fewer windows than this, all of them count.
  std::optional<int64_t> top;
  // The maximum number of vectors of an input, at least 1. Neighboring windows form that many groups, and each group is
  // aggregated into one vector. Absent: one vector per window.
  std::optional<int64_t> vectors;

  static constexpr double kNormTemperature = 1;
  static constexpr int64_t kTop = 3;
};

// An extension as a plain value. The default changes nothing.
struct Extension {
  When when = When::kLong;
  std::optional<Windows> windows;
  PositionsMethod positions;  // Absent parameters are computed from the sequence's length.
  bool resonance = false;
  bool attention_log_scaling = false;
  // The t in softmax(q k / (t sqrt(d))) (arXiv 2410.24200). Default: 1.
  std::optional<double> attention_temperature;
  std::optional<AttentionCalibration> attention_calibration;
};

// The functions below are pure. Multiple threads can call them without external synchronization.

// Returns the names in longembed.v1.Extension of the extension's parts that `model` supports. These depend on its
// position family. Methods that replace the rotary frequencies are missing when the checkpoint scales the frequencies
// pair by pair.
std::vector<std::string> MethodsOf(const ModelManifest& model);

// Checks that `model` supports `extension`. Errors (INVALID_ARGUMENT): METHOD_NOT_AVAILABLE,
// EXTENSION_VALUE_OUT_OF_RANGE, EXTENSION_CONFLICT, WINDOW_TOO_LARGE, WINDOW_TOO_SMALL, OVERLAP_TOO_LARGE. Each names
// the field relative to the extension, its value and the limit.
absl::Status CheckExtension(const ModelManifest& model, const Extension& extension);

// Returns the maximum number of tokens of one sequence under a checked extension. Returns nullopt if only the server's
// limits bound it.
std::optional<int64_t> SequenceCapacity(const ModelManifest& model, const Extension& extension);

// Returns the size of a window in tokens: windows.tokens, or its default. Requires extension.windows.
int64_t WindowTokens(const ModelManifest& model, const Extension& extension);

// Returns the positions of a sequence of `n` tokens under a checked extension, where n <= SequenceCapacity. If the
// method's parameters are absent, a sequence of at most Lo tokens has plain positions.
Positions PositionsOf(const ModelManifest& model, const Extension& extension, int64_t n);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_EXTENSION_H_
