// Compares the encoder on a GPU with the encoder on the CPU, for each family, method and precision. Skipped if there is
// no GPU or no model.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <filesystem>
#include <random>
#include <thread>

#include "model/embed/model.h"
#include "model/encoder/load_encoder.h"
#include "model/encoder/torch_device.h"
#include "model/plan/planner.h"
#include "tests/model/encoder/exported_models.h"

namespace longembed {
namespace {

double LowestCosine(const VectorBlock& a, const VectorBlock& b) {
  double lowest = 1;
  for (int row = 0; row < a.rows; ++row) {
    double dot = 0, aa = 0, bb = 0;
    for (int j = 0; j < a.width; ++j) {
      const double x = a.row(row)[j], y = b.row(row)[j];
      dot += x * y;
      aa += x * x;
      bb += y * y;
    }
    lowest = std::min(lowest, dot / std::sqrt(aa * bb));
  }
  return lowest;
}

// Occupies all free GPU memory until it goes out of scope.
class FullGpu {
 public:
  FullGpu() {
    for (int64_t bytes = int64_t{1} << 30; bytes >= int64_t{1} << 20; bytes /= 2) {
      try {
        while (true) held_.push_back(torch::empty({bytes}, torch::TensorOptions(at::kCUDA).dtype(at::kByte)));
      } catch (const c10::Error&) {
      }
    }
  }

 private:
  std::vector<at::Tensor> held_;
};

class TorchCudaTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    directory_ = std::string(LONGEMBED_MODELS_DIR) + "/" + GetParam();
    if (!std::filesystem::exists(directory_)) GTEST_SKIP() << "models/" << GetParam() << " has not been exported";
    // Checked before the model is read, which would take a second in each test.
    if (const auto device = FindDevice("cuda"); !device.ok()) GTEST_SKIP() << "no GPU: " << device.status().message();
    model_ = *LoadModel(directory_);
    auto gpu = LoadEncoder(directory_, model_->manifest, {.device = "cuda"});
    if (!gpu.ok()) GTEST_SKIP() << "no GPU: " << gpu.status().message();
    gpu_ = *std::move(gpu);
    EXPECT_EQ(gpu_->kernels(), "nvrtc") << "the GPU runs LibTorch's operations in place of our kernels";
    cpu_ = *LoadEncoder(directory_, model_->manifest, {.engine = Engine::kTorchScript});
  }

  // Adds the sequences of a text with `content_tokens` tokens under `extension`. Adds nothing if the model does not
  // support the method.
  void Add(int content_tokens, const Extension& extension) {
    if (!CheckExtension(model_->manifest, extension).ok()) return;
    std::vector<int32_t> content(static_cast<size_t>(content_tokens));
    for (int32_t& id : content) id = std::uniform_int_distribution<int32_t>(1000, 20000)(random_);
    auto plan = PlanInput(model_->manifest, {.content = content}, {.truncate = Truncate::kEnd, .extension = extension},
                          *model_->rotary_tables);
    ASSERT_TRUE(plan.ok()) << plan.status();
    for (PlannedSequence& planned : plan->sequences) sequences_.push_back(std::move(planned.sequence));
  }

  PackedBatch Batch() const {
    std::vector<const Sequence*> all;
    for (const Sequence& sequence : sequences_) all.push_back(&sequence);
    return Pack(all);
  }

  VectorBlock Encode(Encoder& encoder, const PackedBatch& batch) {
    Team team;
    Team::Leader leader(team);
    auto block = encoder.Encode(batch, leader, kNeverCancelled);
    EXPECT_TRUE(block.ok()) << block.status();
    return block.ok() ? *std::move(block) : VectorBlock{};
  }

  // Compares the batch of sequences_ in every precision of the GPU.
  void Compare() {
    const PackedBatch batch = Batch();
    const VectorBlock expected = Encode(*cpu_, batch);
    for (const auto& [precision, lowest] :
         {std::pair(Precision::kFloat32, 0.99999), std::pair(Precision::kFloat16, 0.9999),
          std::pair(Precision::kBfloat16, 0.995)}) {
      const auto gpu = LoadEncoder(directory_, model_->manifest, {.device = "cuda", .precision = precision});
      ASSERT_TRUE(gpu.ok()) << gpu.status();
      const VectorBlock actual = Encode(**gpu, batch);
      ASSERT_EQ(actual.rows, expected.rows);
      const double cosine = LowestCosine(actual, expected);
      EXPECT_GE(cosine, lowest) << PrecisionName(precision);
      RecordProperty(PrecisionName(precision), std::to_string(cosine));
    }
  }

  std::string directory_;
  std::mt19937 random_{5};
  std::unique_ptr<const Model> model_;
  std::unique_ptr<Encoder> gpu_, cpu_;
  std::vector<Sequence> sequences_;
};

TEST_P(TorchCudaTest, PlainTextsOfAllLengths) {
  for (const int tokens : {1, 3, 17, 64, 64, 200, 505, 5}) Add(tokens, {});
  Compare();
}

TEST_P(TorchCudaTest, WindowsAndSpans) {
  Add(1500, {.windows = Windows{.tokens = 128, .overlap = 8}});
  Add(400, {});
  Sequence& last = sequences_.back();
  last.spans = {{0, 1}, {1, 77}, {0, last.size()}};
  Compare();
}

TEST_P(TorchCudaTest, EveryPositionsMethod) {
  const PositionsMethod methods[] = {Grouped{},
                                     Recurrent{},
                                     Interpolation{},
                                     Ntk{.factor = 4},
                                     NtkDynamic{.factor = 2},
                                     NtkByParts{.factor = 4},
                                     Yarn{.factor = 4}};
  for (const PositionsMethod& method : methods) Add(900, {.when = When::kAlways, .positions = method});
  Add(900, {.when = When::kAlways, .positions = Yarn{.factor = 4}, .resonance = true});
  Add(900, {.when = When::kAlways, .positions = Ntk{.factor = 4}, .attention_log_scaling = true});
  ASSERT_FALSE(sequences_.empty());
  Compare();
}

// The graph computes SelfExtend as two attentions per layer. The batch also has sequences with one.
TEST_P(TorchCudaTest, SelfExtendBatched) {
  Add(900, {.when = When::kAlways, .positions = SelfExtend{}});
  if (sequences_.empty()) GTEST_SKIP() << "the model has no rotary positions";
  Add(100, {});
  Compare();
}

// These are computed by formula (torch_explicit_attention.h). The batch also has sequences that need a single call.
TEST_P(TorchCudaTest, CalibrationAndDualChunksBatched) {
  Add(900, {.when = When::kAlways, .positions = Interpolation{}, .attention_calibration = AttentionCalibration{}});
  Add(900, {.when = When::kAlways, .positions = DualChunk{}, .attention_calibration = AttentionCalibration{}});
  Add(700, {.when = When::kAlways, .positions = DualChunk{}});
  ASSERT_FALSE(sequences_.empty());
  Add(100, {});
  Compare();
}

TEST_P(TorchCudaTest, WorkersBesideEachOther) {
  for (const int tokens : {30, 500, 7, 120}) Add(tokens, {});
  const PackedBatch batch = Batch();
  const VectorBlock expected = Encode(*gpu_, batch);
  std::vector<double> lowest(4, 0);
  std::vector<std::thread> workers;
  for (double& cosine : lowest) {
    workers.emplace_back([&] {
      cosine = 1;
      for (int round = 0; round < 20; ++round) {
        cosine = std::min(cosine, LowestCosine(Encode(*gpu_, batch), expected));
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
  for (const double cosine : lowest) EXPECT_GE(cosine, 0.999999);
}

TEST_P(TorchCudaTest, StopsBetweenLayersWhenCancelled) {
  Add(100, {});
  Team team;
  Team::Leader leader(team);
  int asked = 0;
  const auto block = gpu_->Encode(Batch(), leader, [&] { return ++asked == 3; });
  EXPECT_EQ(block.status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(asked, 3);
}

TEST_P(TorchCudaTest, OutOfMemoryFailsOnlyThatBatch) {
  for (int i = 0; i < 16; ++i) Add(500, {});
  const PackedBatch batch = Batch();
  Team team;
  Team::Leader leader(team);
  {
    const FullGpu full;
    const auto refused = gpu_->Encode(batch, leader, kNeverCancelled);
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted) << refused.status();
  }
  EXPECT_GE(LowestCosine(Encode(*gpu_, batch), Encode(*cpu_, batch)), 0.99999);
}

INSTANTIATE_TEST_SUITE_P(Models, TorchCudaTest, ::testing::ValuesIn(kExportedModels), ExportedModelName);

}  // namespace
}  // namespace longembed
