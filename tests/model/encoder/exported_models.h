// What tests of LibTorch's engine share: the exported models that they run over, and a batch that somebody waits for.
#ifndef LONGEMBED_TESTS_MODEL_ENCODER_EXPORTED_MODELS_H_
#define LONGEMBED_TESTS_MODEL_ENCODER_EXPORTED_MODELS_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

namespace longembed {

inline const std::string kE5SmallV2 = std::string(LONGEMBED_MODELS_DIR) + "/e5-small-v2";
inline const auto kSomebodyWaits = [] { return false; };

// Learned positions, rotary ones, a decoder.
inline constexpr const char* kExportedModels[] = {"e5-small-v2", "e5-small-rope", "SmolLM2-135M-Instruct"};

// GoogleTest's names have no hyphens.
inline std::string ExportedModelName(const ::testing::TestParamInfo<const char*>& info) {
  std::string name = info.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

}  // namespace longembed

#endif  // LONGEMBED_TESTS_MODEL_ENCODER_EXPORTED_MODELS_H_
