// The exported models that tests of LibTorch's engine run over: learned positions, rotary ones, a decoder.
#ifndef LONGEMBED_TESTS_MODEL_ENCODER_EXPORTED_MODELS_H_
#define LONGEMBED_TESTS_MODEL_ENCODER_EXPORTED_MODELS_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

namespace longembed {

inline constexpr const char* kExportedModels[] = {"e5-small-v2", "e5-small-rope", "SmolLM2-135M-Instruct"};

// GoogleTest's names have no hyphens.
inline std::string ExportedModelName(const ::testing::TestParamInfo<const char*>& info) {
  std::string name = info.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

}  // namespace longembed

#endif  // LONGEMBED_TESTS_MODEL_ENCODER_EXPORTED_MODELS_H_
