// Compares archives that are read as pages of their file with torch::jit::load.
#include "model/encoder/torch_archive.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/script.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "model/manifest/manifest.h"
#include "tests/model/encoder/exported_models.h"

namespace longembed {
namespace {

using ::testing::HasSubstr;

TEST(TorchArchiveTest, TensorsArePagesOfTheFile) {
  if (!std::filesystem::exists(kE5SmallV2))
    GTEST_SKIP() << "models/e5-small-v2 has not been exported; run deploy/setup.sh";
  const std::string path = kE5SmallV2 + "/" + kEncoderFile;
  const auto loaded = LoadMapped(path);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_THAT(loaded->contract, HasSubstr("ape-v1"));
  const torch::jit::Module expected = torch::jit::load(path);
  std::map<std::string, at::Tensor> weights;
  for (const auto& parameter : expected.named_parameters()) weights.emplace(parameter.name, parameter.value);
  const auto bytes = loaded->file->bytes();
  size_t found = 0;
  for (const auto& parameter : loaded->module.named_parameters()) {
    const at::Tensor& weight = parameter.value;
    ASSERT_TRUE(weights.contains(parameter.name)) << parameter.name;
    EXPECT_TRUE(torch::equal(weight, weights.at(parameter.name))) << parameter.name;
    const auto* const data = static_cast<const std::byte*>(weight.const_data_ptr());
    EXPECT_TRUE(data >= bytes.data() && data + weight.nbytes() <= bytes.data() + bytes.size()) << parameter.name;
    ++found;
  }
  EXPECT_EQ(found, weights.size());
}

TEST(TorchArchiveTest, AFileThatIsNoArchiveThrows) {
  const std::string path = std::string(::testing::TempDir()) + "/no_archive.pt";
  std::ofstream(path) << "not a graph";
  EXPECT_ANY_THROW((void)LoadMapped(path));
  EXPECT_EQ(LoadMapped("/nonexistent").status().code(), absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace longembed
