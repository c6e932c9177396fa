// Shared parts of the tests of LibTorch's engine: the exported models that they use, and a batch that is never
// cancelled.
#ifndef LONGEMBED_TESTS_MODEL_ENCODER_EXPORTED_MODELS_H_
#define LONGEMBED_TESTS_MODEL_ENCODER_EXPORTED_MODELS_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

namespace longembed {

inline const std::string kE5SmallV2 = std::string(LONGEMBED_MODELS_DIR) + "/e5-small-v2";
inline const auto kNeverCancelled = [] { return false; };

// A model with learned positions, one with rotary positions, and a decoder.
inline constexpr const char* kExportedModels[] = {"e5-small-v2", "e5-small-rope", "SmolLM2-135M-Instruct"};

// Returns a test name. GoogleTest's names must not contain hyphens.
inline std::string ExportedModelName(const ::testing::TestParamInfo<const char*>& info) {
  std::string name = info.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

}  // namespace longembed

#endif  // LONGEMBED_TESTS_MODEL_ENCODER_EXPORTED_MODELS_H_
