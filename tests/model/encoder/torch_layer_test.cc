// Compares a layer that is run part by part, with its attention as one padded call, with the layer's own forward().
// This is what a GPU runs without FlashAttention, tested on the CPU.
#include "model/encoder/torch_layer.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <random>

#include "model/embed/model.h"
#include "model/plan/planner.h"
#include "tests/model/encoder/cuda/kernels_on_cpu.h"
#include "tests/model/encoder/exported_models.h"

namespace longembed {
namespace {

class TorchLayerTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::string directory = std::string(LONGEMBED_MODELS_DIR) + "/" + GetParam();
    if (!std::filesystem::exists(directory)) GTEST_SKIP() << "models/" << GetParam() << " has not been exported";
    model_ = *LoadModel(directory);
    module_ = torch::jit::load(directory + "/" + kEncoderFile);
    module_.eval();
  }

  PackedBatch Batch(const std::vector<int>& content_tokens) {
    std::vector<Sequence> sequences;
    for (const int tokens : content_tokens) {
      std::vector<int32_t> content(static_cast<size_t>(tokens));
      for (int32_t& id : content) id = std::uniform_int_distribution<int32_t>(1000, 20000)(random_);
      sequences.push_back(
          PlanInput(model_->manifest, {.content = content}, {}, *model_->rotary_tables)->sequences[0].sequence);
    }
    std::vector<const Sequence*> all;
    for (const Sequence& sequence : sequences) all.push_back(&sequence);
    return Pack(all);
  }

  // Compares the first layer, run as a whole, with the same layer run part by part.
  void Compare(PackedBatch& batch, bool fits) {
    const c10::InferenceMode inference;
    const ModelManifest& m = model_->manifest;
    const auto tokens = static_cast<int64_t>(batch.tokens.size());
    TorchAttentionBatch context(batch);
    context.sequence_offsets = torch::tensor(batch.sequence_offsets, at::kInt);
    context.query_scale = QueryScaleRows(batch, at::kCPU);
    EXPECT_EQ(context.query_scale.defined(), batch.query_scale[0] != batch.query_scale[1]);
    std::vector<c10::IValue> arguments{torch::randn({tokens, m.hidden_size}), torch::tensor(batch.query_scale),
                                       torch::tensor(batch.neighbor_window, at::kInt), context.sequence_offsets};
    if (m.family == Family::kRope) {
      context.rotary = torch::tensor(batch.rotary).view({batch.rotary_tables, 2, tokens, batch.rotary_width});
      arguments.insert(arguments.begin() + 1, context.rotary);
    }
    const torch::jit::Module first = *module_.attr("layers").toModule().children().begin();
    TorchLayer layer(first);
    ASSERT_TRUE(layer.is_decomposed());
    const at::Tensor expected = layer.Run(arguments, nullptr, 0), actual = layer.Run(arguments, &context, 0);
    EXPECT_TRUE(torch::allclose(actual, expected, 1e-4, 1e-4)) << (actual - expected).abs().max();
    std::map<cuda::Kernel, int> launched;
    const TorchFused kernels([&launched](cuda::Kernel kernel, int64_t blocks, void** pointers) {
      ++launched[kernel];
      return cuda::LaunchOnCpu(cuda::ElementType::kFloat32, kernel, blocks, pointers);
    });
    context.fused = &kernels;
    const at::Tensor by_kernels = layer.Run(arguments, &context, 0);
    EXPECT_TRUE(torch::allclose(by_kernels, expected, 1e-4, 1e-4)) << (by_kernels - expected).abs().max();
    ExpectKernels(launched, fits);
    context.fused = nullptr;
    const int64_t head_columns = (m.attention_heads + 2 * m.key_value_heads) * m.head_dim;
    const auto fused =
        AttendPacked(torch::randn({tokens, head_columns}), {m.attention_heads, m.key_value_heads, m.causal}, context);
    EXPECT_EQ(fused.has_value(), fits);
  }

  // Checks that each part between the layer's products runs as one kernel, and that no part is left to LibTorch.
  void ExpectKernels(const std::map<cuda::Kernel, int>& launched, bool fits) const {
    using cuda::Kernel;
    const bool decoder = std::string(GetParam()) == "SmolLM2-135M-Instruct";
    std::map<Kernel, int> expected{{decoder ? Kernel::kAddRmsNorm : Kernel::kAddLayerNorm, 2},
                                   {decoder ? Kernel::kGatedActivation : Kernel::kBiasGelu, 1}};
    if (model_->manifest.family == Family::kRope && fits) expected[Kernel::kRotate] = 1;
    EXPECT_EQ(launched, expected);
  }

  std::mt19937 random_{3};
  std::unique_ptr<const Model> model_;
  torch::jit::Module module_;
};

TEST_P(TorchLayerTest, OnePaddedCall) {
  PackedBatch batch = Batch({30, 25, 28, 30});
  Compare(batch, true);
}

TEST_P(TorchLayerTest, ScalesThatDiffer) {
  PackedBatch batch = Batch({30, 25, 28});
  batch.query_scale = {1.0f, 1.4f, 0.9f};
  Compare(batch, true);
}

TEST_P(TorchLayerTest, MuchPaddingIsLeftToTheGraph) {
  PackedBatch batch = Batch({200, 3, 5, 2});
  Compare(batch, false);
}

INSTANTIATE_TEST_SUITE_P(Models, TorchLayerTest, ::testing::ValuesIn(kExportedModels), ExportedModelName);

}  // namespace
}  // namespace longembed
