// Tests the TorchScript encoder on the default model, if it has been exported. tests/integration compares its vectors
// with transformers.
#include "model/encoder/torch_encoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/script.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <random>
#include <stdexcept>

#include "model/embed/model.h"
#include "model/embed/precision_check.h"
#include "model/encoder/load_encoder.h"
#include "model/errors/errors.h"
#include "model/plan/planner.h"
#include "tests/model/encoder/exported_models.h"

namespace longembed {
namespace {

using ::testing::HasSubstr;

class TorchEncoderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(kE5SmallV2))
      GTEST_SKIP() << "models/e5-small-v2 has not been exported; run deploy/setup.sh";
    SetTorchThreads(1);
    model_ = *LoadModel(kE5SmallV2);
    encoder_ = *LoadEncoder(kE5SmallV2, model_->manifest, {});
  }

  Sequence RandomSequence(int content_tokens) {
    std::vector<int32_t> content(content_tokens);
    for (int32_t& id : content) id = std::uniform_int_distribution<int32_t>(1000, 30000)(random_);
    return PlanInput(model_->manifest, {.content = content}, {}, *model_->rotary_tables)->sequences[0].sequence;
  }

  VectorBlock Encode(const std::vector<const Sequence*>& sequences) {
    auto block = encoder_->Encode(Pack(sequences), leader_, kNeverCancelled);
    EXPECT_TRUE(block.ok()) << block.status();
    return *std::move(block);
  }

  static std::vector<float> Normalized(std::span<const float> row) {
    double squares = 0;
    for (const float x : row) squares += static_cast<double>(x) * x;
    std::vector<float> vector;
    for (const float x : row) vector.push_back(static_cast<float>(x / std::sqrt(squares)));
    return vector;
  }

  Team team_;
  Team::Leader leader_{team_};
  std::mt19937 random_{11};
  std::unique_ptr<const Model> model_;
  std::unique_ptr<Encoder> encoder_;
};

// Our kernels run the lowered graph. LibTorch runs the graph itself.
TEST_F(TorchEncoderTest, TheLoweredGraphGivesTheGraphsVectors) {
  if (encoder_->engine() != "native") GTEST_SKIP() << "this processor has no kernels of ours";
  const auto graph = LoadEncoder(kE5SmallV2, model_->manifest, {.engine = Engine::kTorchScript});
  ASSERT_TRUE(graph.ok()) << graph.status();
  EXPECT_EQ((*graph)->engine(), "torchscript");
  std::vector<Sequence> sequences;
  for (const int tokens : {1, 3, 17, 64, 64, 200, 510, 5}) sequences.push_back(RandomSequence(tokens));
  sequences[3].query_scale = 1.3f;
  for (float& position : sequences[5].positions) position *= 0.37f;
  std::vector<const Sequence*> all;
  for (const Sequence& sequence : sequences) all.push_back(&sequence);
  const VectorBlock actual = Encode(all);
  const auto expected = (*graph)->Encode(Pack(all), leader_, kNeverCancelled);
  ASSERT_TRUE(expected.ok()) << expected.status();
  for (int row = 0; row < actual.rows; ++row) {
    for (int j = 0; j < actual.width; ++j) ASSERT_NEAR(actual.row(row)[j], expected->row(row)[j], 2e-5);
  }
}

TEST_F(TorchEncoderTest, OnlyPooledRowsAreComputedInTheLastLayer) {
  Sequence first_token = RandomSequence(40), whole = first_token;
  first_token.spans = {{0, 1}};
  whole.spans = {{0, 42}, {0, 1}};
  const VectorBlock part = Encode({&first_token, &first_token}), all = Encode({&whole});
  for (int j = 0; j < part.width; ++j) {
    ASSERT_NEAR(part.row(0)[j], all.row(1)[j], 1e-5);
    ASSERT_NEAR(part.row(1)[j], all.row(1)[j], 1e-5);
  }
}

TEST_F(TorchEncoderTest, NarrowPrecisionsStayClose) {
  for (const auto& [precision, lowest] : {std::pair(Precision::kBfloat16, 0.9995), std::pair(Precision::kInt8, 0.99)}) {
    const auto narrow = LoadEncoder(kE5SmallV2, model_->manifest, {.precision = precision});
    if (!narrow.ok()) GTEST_SKIP() << narrow.status().message();
    if ((*narrow)->engine() != "native") GTEST_SKIP() << "this processor has no kernels of ours";
    EXPECT_EQ((*narrow)->precision(), precision);
    const auto report = ComparePrecision(*model_, *encoder_, **narrow, /*threads=*/2);
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_GE(report->lowest_cosine, lowest) << PrecisionName(precision);
    EXPECT_LT(report->lowest_cosine, 0.9999999) << "nothing was rounded";
    EXPECT_GE(report->mean_cosine, report->lowest_cosine);
  }
}

TEST_F(TorchEncoderTest, Float16NeedsCuda) {
  const auto encoder = LoadEncoder(kE5SmallV2, model_->manifest, {.precision = Precision::kFloat16});
  EXPECT_EQ(encoder.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(encoder.status().message()), HasSubstr("fp16 is for CUDA"));
}

TEST_F(TorchEncoderTest, AloneEqualsBatched) {
  std::vector<Sequence> sequences;
  for (const int tokens : {1, 3, 17, 64, 64, 200, 510, 5}) sequences.push_back(RandomSequence(tokens));
  std::vector<const Sequence*> all;
  for (const Sequence& sequence : sequences) all.push_back(&sequence);
  const VectorBlock batched = Encode(all);
  ASSERT_EQ(batched.rows, static_cast<int>(sequences.size()));
  ASSERT_EQ(batched.width, 384);
  for (size_t i = 0; i < sequences.size(); ++i) {
    const VectorBlock alone = Encode({&sequences[i]});
    const std::vector<float> expected = Normalized(alone.row(0)), actual = Normalized(batched.row(static_cast<int>(i)));
    for (int j = 0; j < batched.width; ++j) ASSERT_NEAR(actual[j], expected[j], 1e-5) << "sequence " << i;
  }
}

TEST_F(TorchEncoderTest, SpansArePooledEachOnItsOwn) {
  Sequence sequence = RandomSequence(30);
  const int n = sequence.size();
  sequence.spans.clear();
  for (int i = 0; i < n; ++i) sequence.spans.push_back({i, i + 1});
  sequence.spans.push_back({0, n});
  const VectorBlock block = Encode({&sequence});
  ASSERT_EQ(block.rows, n + 1);
  for (int j = 0; j < block.width; ++j) {
    double sum = 0;
    for (int i = 0; i < n; ++i) sum += block.row(i)[j];
    ASSERT_NEAR(block.row(n)[j], sum / n, 1e-5);
  }
}

TEST_F(TorchEncoderTest, StopsBetweenLayersWhenCancelled) {
  const Sequence sequence = RandomSequence(10);
  int asked = 0;
  const auto block =
      encoder_->Encode(Pack(std::vector<const Sequence*>{&sequence}), leader_, [&asked] { return ++asked == 3; });
  EXPECT_EQ(block.status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(asked, 3);
}

TEST_F(TorchEncoderTest, RefusesDevicesThatAreNotThere) {
  for (const char* name : {"cuda", "cuda:7"}) {
    const auto encoder = LoadEncoder(kE5SmallV2, model_->manifest, {.device = name});
    if (encoder.ok()) GTEST_SKIP() << "this machine has " << name;
    EXPECT_EQ(encoder.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(encoder.status().message()), HasSubstr("Set it to cpu"));
  }
  for (const char* name : {"", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda: 1", "cuda:+1", "cuda1"}) {
    const auto encoder = LoadEncoder(kE5SmallV2, model_->manifest, {.device = name});
    EXPECT_EQ(encoder.status().code(), absl::StatusCode::kInvalidArgument) << name;
  }
}

TEST_F(TorchEncoderTest, LibTorchRunsTheGraphInBfloat16Too) {
  const auto graph =
      LoadEncoder(kE5SmallV2, model_->manifest, {.precision = Precision::kBfloat16, .engine = Engine::kTorchScript});
  ASSERT_TRUE(graph.ok()) << graph.status();
  // One short text only: a CPU without bfloat16 would need a minute for those of ComparePrecision.
  const Sequence sequence = RandomSequence(40);
  const auto block = (*graph)->Encode(Pack(std::vector<const Sequence*>{&sequence}), leader_, kNeverCancelled);
  ASSERT_TRUE(block.ok()) << block.status();
  const std::vector<float> in_bfloat16 = Normalized(block->row(0)), in_float32 = Normalized(Encode({&sequence}).row(0));
  const double cosine = std::inner_product(in_float32.begin(), in_float32.end(), in_bfloat16.begin(), 0.0);
  EXPECT_GE(cosine, 0.9995);
  EXPECT_LT(cosine, 1 - 1e-7) << "that is float32";
  EXPECT_EQ(LoadEncoder(kE5SmallV2, model_->manifest, {.precision = Precision::kInt8, .engine = Engine::kTorchScript})
                .status()
                .code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(TorchEncoderTest, CudaGivesTheCpusVectors) {
  for (const auto& [precision, lowest] :
       {std::pair(Precision::kFloat32, 0.99999), std::pair(Precision::kFloat16, 0.9999),
        std::pair(Precision::kBfloat16, 0.9995)}) {
    const auto cuda = LoadEncoder(kE5SmallV2, model_->manifest, {.device = "cuda", .precision = precision});
    if (!cuda.ok()) GTEST_SKIP() << "no GPU: " << cuda.status().message();
    const auto report = ComparePrecision(*model_, *encoder_, **cuda, /*threads=*/2);
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_GE(report->lowest_cosine, lowest) << PrecisionName(precision);
  }
}

TEST_F(TorchEncoderTest, RefusesAManifestWithOtherSizesThanTheGraph) {
  struct Edit {
    int ModelManifest::*size;
    const char* key;
  };
  for (const Edit& edit :
       {Edit{&ModelManifest::vocabulary_size, "vocabulary_size 30522"},
        Edit{&ModelManifest::hidden_size, "hidden_size 384"}, Edit{&ModelManifest::vector_size, "vector_size 384"},
        Edit{&ModelManifest::layers, "layers 12"}, Edit{&ModelManifest::position_rows, "position_rows 512"}}) {
    for (const Engine engine : {Engine::kAuto, Engine::kTorchScript}) {
      ModelManifest manifest = model_->manifest;
      manifest.*edit.size *= 2;
      const auto encoder = LoadEncoder(kE5SmallV2, manifest, {.engine = engine});
      EXPECT_EQ(encoder.status().code(), absl::StatusCode::kFailedPrecondition) << edit.key;
      EXPECT_THAT(std::string(encoder.status().message()), HasSubstr(edit.key));
    }
  }
}

// A batch is run again in halves only if LibTorch's words for a failed allocation are known.
TEST(StatusOfExceptionTest, LibTorchRanOutOfMemory) {
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // They end a process that allocates so much.
  torch::jit::Module large("__torch__.test.Large");
  large.define("def forward(self, x):\n    return x.new_empty([1 << 58])\n");
  for (const bool interpreted : {false, true}) {
    try {
      interpreted ? large.forward({torch::ones({1})}).toTensor() : torch::empty({int64_t{1} << 58}, torch::kByte);
      FAIL() << "more memory than any machine has was allocated";
    } catch (const std::exception& error) {
      EXPECT_EQ(StatusOfException(error).code(), absl::StatusCode::kResourceExhausted) << error.what();
    }
  }
#endif
  for (const char* said : {"CUDA out of memory. Tried to allocate 2.00 GiB",
                           "DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes.",
                           "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"}) {
    EXPECT_EQ(StatusOfException(std::runtime_error(said)).code(), absl::StatusCode::kResourceExhausted) << said;
  }
  EXPECT_EQ(StatusOfException(std::runtime_error("shapes cannot be multiplied")).code(), absl::StatusCode::kInternal);
}

TEST(LoadEncoderTest, SaysWhatIsWrongWithAFile) {
  const std::filesystem::path directory = std::filesystem::path(::testing::TempDir()) / "torch_encoder_files";
  std::filesystem::create_directories(directory);
  const auto missing = LoadEncoder("/nonexistent", {}, {});
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kFailedPrecondition);
  std::ofstream(directory / "encoder.pt") << "not a graph";
  const auto garbage = LoadEncoder(directory, {}, {});
  EXPECT_EQ(garbage.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(garbage.status().message()), HasSubstr("encoder.pt"));
}

}  // namespace
}  // namespace longembed
